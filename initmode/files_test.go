package initmode

import (
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/config"
)

// Names of an image become names of our files only if they are those of units, and of none of ours.
func TestT1ForeignUnits(t *testing.T) {
	long := strings.Repeat("x", maxUnitName-len(".service"))
	for name, want := range map[string]bool{
		"foo.service": true, "a@.service": true, "a@b.timer": true, `dev-disk-by\x2duuid.swap`: true, "a:b_c.d-e.socket": true, "x.device": true, long + ".service": true,
		"rich.service": true, "richer-app.service": true,
		"rich-app.service": false, "rich-app.socket": false, "rich.target": false, "rich-component-x.service": false,
		"": false, ".service": false, "@.service": false, "foo": false, "foo.conf": false, "foo.service.d": false, "foo.target.wants": false,
		"a b.service": false, "a\nb.service": false, "a/b.service": false, "../a.service": false, "ä.service": false, "a%b.service": false, "a\x00.service": false,
		"x" + long + ".service": false,
	} {
		if got := isForeignUnit(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
	root := makeRootfs(t, map[string]string{
		"etc/systemd/system/foo.service":                    "[Install]\nAlias=bar.service\n",
		"etc/systemd/system/rich-app.service":               "->foo.service",
		"etc/systemd/system/also.service":                   "->foo.service",
		"etc/systemd/system/a b.service":                    "->foo.service",
		"etc/systemd/system/new\nline.service":              "->foo.service",
		"usr/lib/systemd/system/rich-state.service":         "->/etc/systemd/system/foo.service",
		"usr/lib/systemd/system/rich-x.service":             "[Install]\nAlias=baz.service\n",
		"usr/lib/systemd/system/evil\nExecStart=x.service":  "[Install]\nAlias=qux.service\n",
		"usr/lib/systemd/system/linked.service":             "->rich-own.service",
		"usr/lib/systemd/system/rich-own.service":           "[Unit]\n",
		"usr/lib/systemd/system/elsewhere.service":          "->/opt/un it.service",
		"opt/un it.service":                                 "[Unit]\n",
		"usr/lib/systemd/system/second-elsewhere.service":   "->/opt/un it.service",
		"usr/lib/systemd/system/third\telsewhere.service":   "->/opt/un it.service",
		"usr/lib/systemd/system/rich-fourth-unit-x.service": "->/opt/un it.service",
	})
	req := &Request{Spec: &specs.Spec{}, Rootfs: root, Options: config.Options{Mask: []string{"foo", "baz", "qux", "linked", "elsewhere"}}}
	got := slices.DeleteFunc(new(Plan).masks(req, nil), func(name string) bool { return slices.Contains(masked, name) })
	slices.Sort(got)
	want := []string{"also.service", "baz.service", "elsewhere.service", "foo.service", "linked.service", "qux.service", "second-elsewhere.service"}
	if !slices.Equal(got, want) {
		t.Errorf("masked are %q, want %q", got, want)
	}
	// What becomes a line of our unit.
	for service, fine := range map[string]bool{"bar": true, "baz": false, "qux": false} {
		req.Options = config.Options{Services: []string{service}, ServicesSource: "test"}
		if unit, err := new(Plan).findUnit(req, service); (err == nil) != fine {
			t.Errorf("%s: %q, %v", service, unit, err)
		}
	}
}

// Whatever the image calls its units, the files of a plan are at places of their own.
func FuzzT1Mask(f *testing.F) {
	for _, alias := range []string{"rich-app.service", "a.service", "..service", "foo.service.d", "reboot.target.wants", "x\ny.service"} {
		f.Add(alias)
	}
	f.Fuzz(func(t *testing.T, alias string) {
		if alias == "" || len(alias) > 255 || strings.ContainsAny(alias, "/\x00") || alias == "." || alias == ".." || alias == "foo.service" {
			return
		}
		req := &Request{
			Spec: &specs.Spec{Linux: &specs.Linux{}, Process: &specs.Process{}}, RunDir: "/r",
			Rootfs:  makeRootfs(t, map[string]string{"etc/systemd/system/foo.service": "", "etc/systemd/system/" + alias: "->foo.service"}),
			Options: config.Options{Mask: []string{"foo"}},
		}
		p := &Plan{Init: config.InitSystemd}
		p.Files = systemd{}.units(req, p, "/run/rich", nil, p.masks(req, nil))
		if err := p.checkFiles(req); err != nil {
			t.Errorf("%q: %v", alias, err)
		}
	})
}

func TestT1CheckFiles(t *testing.T) {
	req := &Request{RunDir: "/bundle/rich/run"}
	for name, tc := range map[string]struct {
		files []File
		mount string
		fine  bool
	}{
		"fine":                    {[]File{{Path: "a/b"}, {Path: "a/c", Mode: fs.ModeSymlink}, {Path: "d", Mode: fs.ModeDir}, {Path: "d/e"}}, "a/b", true},
		"directory":               {[]File{{Path: "a/b"}}, "a", true},
		"twice":                   {[]File{{Path: "a", Mode: fs.ModeSymlink, Link: "/dev/null"}, {Path: "a"}}, "", false},
		"below a link":            {[]File{{Path: "a", Mode: fs.ModeSymlink, Link: "/dev"}, {Path: "a/null"}}, "", false},
		"below a later link":      {[]File{{Path: "a/null"}, {Path: "a", Mode: fs.ModeSymlink, Link: "/dev"}}, "", false},
		"below a file":            {[]File{{Path: "a"}, {Path: "a/b/c"}}, "", false},
		"above":                   {[]File{{Path: "../a"}}, "", false},
		"absolute":                {[]File{{Path: "/a"}}, "", false},
		"unclean":                 {[]File{{Path: "a//b"}}, "", false},
		"the directory":           {[]File{{Path: "."}}, "", false},
		"long":                    {[]File{{Path: "a/" + strings.Repeat("x", 256)}}, "", false},
		"mount of a link":         {[]File{{Path: "a", Mode: fs.ModeSymlink, Link: "/etc/shadow"}}, "a", false},
		"mount of something else": {[]File{{Path: "a"}}, "b", false},
		"mount from above":        {[]File{{Path: "a"}}, "../made.json", false},
	} {
		p := &Plan{Files: tc.files}
		if tc.mount != "" {
			p.Mounts = []Mount{{Mount: specs.Mount{Source: req.RunDir + "/" + tc.mount}}}
		}
		if err := p.checkFiles(req); (err == nil) != tc.fine {
			t.Errorf("%s: %v", name, err)
		}
	}
}
