package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// maxServiceName is the longest name that systemd takes for a unit, in bytes.
const maxServiceName = 255

// serviceName is what all inits take as a name: in scripts it needs no
// quoting. Of systemd's characters the backslash is left out.
var serviceName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.:@-]*$`) })

// reservedPrefix begins the names of the services that the runtime adds.
const reservedPrefix = "rich-"

// IsReserved reports whether a service, whose name may have a unit's suffix, is
// or could be one that the runtime adds.
func IsReserved(name string) bool {
	return strings.HasPrefix(name, reservedPrefix) || name == "rich.target"
}

// setServices sets a list of services. The suffix of systemd's services is
// left out, so that each of them has one name.
func setServices(field *[]string, names []string) error {
	var out []string
	for _, name := range names {
		name = strings.TrimSuffix(name, ".service")
		switch {
		case !serviceName().MatchString(name) || len(name) > maxServiceName-len(".service"):
			return fmt.Errorf("service %q: want a name of letters, digits and _ . : @ -", name)
		case IsReserved(name):
			return fmt.Errorf("service %q: names with %q are the runtime's own; remove it", name, reservedPrefix)
		case !slices.Contains(out, name):
			out = append(out, name)
		}
	}
	*field = out
	return nil
}
