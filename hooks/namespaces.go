package hooks

import (
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Hold keeps the namespaces of a container open that its poststop hooks need
// when it is gone.
func (s *Set) Hold(pid int) error {
	if len(s.record.Poststop) == 0 || s.spec.Linux == nil {
		return nil
	}
	s.namespaces = map[specs.LinuxNamespaceType]*os.File{}
	for _, ns := range s.spec.Linux.Namespaces {
		name := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net", specs.UserNamespace: "user"}[ns.Type]
		if name == "" || ns.Path != "" {
			continue
		}
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
		if err != nil {
			s.Release()
			return err
		}
		s.namespaces[ns.Type] = f
	}
	return nil
}

// Release lets the namespaces go.
func (s *Set) Release() {
	for _, f := range s.namespaces {
		f.Close()
	}
	s.namespaces = nil
}
