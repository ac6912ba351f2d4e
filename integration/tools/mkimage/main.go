// Command mkimage turns a root file system tar into a one-layer image archive that "ctr images import" takes.
//
// The layer is stored uncompressed and is streamed, never held in memory.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// list is a flag that may be given more than once.
type list []string

func (l *list) String() string { return strings.Join(*l, " ") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var (
		config                 v1.Config
		entrypoint, cmd        list
		env, labels            list
		rootfs, output, tagged string
	)
	flags := flag.NewFlagSet("mkimage", flag.ExitOnError)
	flags.StringVar(&rootfs, "rootfs", "", "tar of the root file system (must)")
	flags.StringVar(&output, "output", "", "image archive to write (must)")
	flags.StringVar(&tagged, "name", "", "full name with tag, e.g. localhost/busybox:latest (must)")
	flags.Var(&entrypoint, "entrypoint", "one word of the entrypoint; repeat for more")
	flags.Var(&cmd, "cmd", "one word of the command; repeat for more")
	flags.Var(&env, "env", "NAME=value; repeat for more")
	flags.Var(&labels, "label", "name=value; repeat for more")
	flags.StringVar(&config.User, "user", "", "user[:group]")
	flags.StringVar(&config.WorkingDir, "workdir", "", "working directory")
	flags.StringVar(&config.StopSignal, "stop-signal", "", "stop signal")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if rootfs == "" || output == "" || tagged == "" {
		return fmt.Errorf("-rootfs, -output and -name must be given")
	}

	tag, err := name.NewTag(tagged, name.StrictValidation)
	if err != nil {
		return err
	}
	config.Entrypoint, config.Cmd, config.Env = entrypoint, cmd, env
	for _, label := range labels {
		key, value, found := strings.Cut(label, "=")
		if !found {
			return fmt.Errorf("label %q has no =", label)
		}
		if config.Labels == nil {
			config.Labels = map[string]string{}
		}
		config.Labels[key] = value
	}

	layer, err := openLayer(rootfs)
	if err != nil {
		return fmt.Errorf("layer of %s: %w", rootfs, err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	// A fixed time keeps the image's digest that of its content.
	file.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	file.Config = config
	if image, err = mutate.ConfigFile(image, file); err != nil {
		return err
	}
	return write(output, tag, image)
}

// write leaves either the whole archive or nothing at path.
func write(path string, tag name.Tag, image v1.Image) error {
	part, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	if err := tarball.Write(tag, image, part); err != nil {
		part.Close()
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := part.Close(); err != nil {
		return err
	}
	return os.Rename(part.Name(), path)
}

// plainLayer is a tar file as a layer, without compression. The library's own layers of a tar are always compressed.
type plainLayer struct {
	path string
	hash v1.Hash
	size int64
}

func openLayer(path string) (*plainLayer, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	hash, size, err := v1.SHA256(file)
	if err != nil {
		return nil, err
	}
	return &plainLayer{path: path, hash: hash, size: size}, nil
}

func (l *plainLayer) Digest() (v1.Hash, error)             { return l.hash, nil }
func (l *plainLayer) DiffID() (v1.Hash, error)             { return l.hash, nil }
func (l *plainLayer) Size() (int64, error)                 { return l.size, nil }
func (l *plainLayer) MediaType() (types.MediaType, error)  { return types.DockerUncompressedLayer, nil }
func (l *plainLayer) Compressed() (io.ReadCloser, error)   { return os.Open(l.path) }
func (l *plainLayer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.path) }
