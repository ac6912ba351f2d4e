package initmode

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// maxFileName is how long the name of a file can be, in bytes (NAME_MAX).
const maxFileName = 255

// checkFiles makes sure that each file of a plan is one of its own: below
// RunDir, at a place that no other one has or leads through. And that what is
// mounted of RunDir is one of these files, and no link. Names in the paths may
// come from the image or an annotation, and the files are written by the host.
func (p *Plan) checkFiles(req *Request) error {
	files := make(map[string]fs.FileMode, 2*len(p.Files))
	dirs := map[string]bool{".": true}
	for _, f := range p.Files {
		if err := checkFileName(f.Path); err != nil {
			return fmt.Errorf("file %q of init %q: %w", f.Path, p.Init, err)
		}
		if _, twice := files[f.Path]; twice {
			return fmt.Errorf("file %q of init %q: there are two of this name", f.Path, p.Init)
		}
		files[f.Path] = f.Mode.Type()
		for dir := path.Dir(f.Path); !dirs[dir]; dir = path.Dir(dir) {
			dirs[dir] = true
		}
	}
	for _, f := range p.Files {
		if f.Mode.Type() != fs.ModeDir && dirs[f.Path] {
			return fmt.Errorf("file %q of init %q: another one is to lie below it", f.Path, p.Init)
		}
	}
	for _, m := range p.Mounts {
		name, ours := strings.CutPrefix(m.Source, req.RunDir+"/")
		if !ours {
			continue
		}
		if kind, found := files[name]; !dirs[name] && (!found || kind == fs.ModeSymlink) {
			return fmt.Errorf("mount of file %q of init %q: it is none of its files", name, p.Init)
		}
	}
	return nil
}

func checkFileName(name string) error {
	if name == "." || !fs.ValidPath(name) || strings.IndexByte(name, 0) >= 0 {
		return errors.New("not a path below the directory of the runtime's files")
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > maxFileName {
			return fmt.Errorf("a name of %d bytes, at most %d are possible", len(part), maxFileName)
		}
	}
	return nil
}
