// Command bench measures the shim beside its peers: containerd's own shim
// with runc and with crun, systemd-nspawn, and podman. See
// docs/performance.md.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"syscall"
	"time"

	"containerd-shim-rich/integration/containerdtest"
)

// bench is one run.
type bench struct {
	*containerdtest.Daemon
	// other has the same containerd where crun can run.
	other *bench
	build string
	cap   int // of the rounds of any figure; 0 is none
	ids   int
}

// groups are figures that are measured together, in order.
var groups = []struct {
	name    string
	measure func(*bench) ([]figure, error)
}{
	{"cycle", (*bench).cycle},
	{"exec", (*bench).exec},
	{"at-once", (*bench).atOnce},
	{"boot", (*bench).boot},
	{"memory", (*bench).memory},
	{"output", (*bench).output},
	{"flat", (*bench).flat},
}

// A floor enters namespaces with a thread that it leaves to be destroyed, which
// Go cannot do to the main one (see the shim's main).
func init() { goruntime.LockOSThread() }

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	build := flag.String("build", "build", "the folder with all programs and images")
	most := flag.Int("rounds", 0, "the most rounds for a figure; 0 is what each needs")
	focus := flag.String("focus", "", "a regular expression of the groups to measure; nothing is written then")
	docs := flag.String("docs", "", "the page whose table is to be written")
	flag.Parse()
	if os.Geteuid() != 0 {
		return errors.New("it needs root")
	}
	wanted, err := regexp.Compile(*focus)
	if err != nil {
		return fmt.Errorf("-focus: %w", err)
	}
	b := &bench{cap: *most}
	if b.build, err = filepath.Abs(*build); err != nil {
		return err
	}
	machine, err := b.machine()
	if err != nil {
		return err
	}
	fmt.Println(machine)
	hidden, err := hybrid()
	if err != nil {
		return err
	}
	b.other = &bench{build: b.build}
	for _, d := range []struct {
		*bench
		hidden string
	}{{b, ""}, {b.other, hidden}} {
		if d.Daemon, err = newDaemon(b.build, d.hidden); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.Remove()) }()
		if err := d.Start(); err != nil {
			return err
		}
	}
	// The client mounts snapshots below the temporary folder.
	if err := os.Setenv("TMPDIR", b.ClientTemp()); err != nil {
		return err
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-interrupted
		fmt.Fprintln(os.Stderr, "bench: interrupted", b.other.Remove(), b.Remove())
		os.Exit(1)
	}()

	begin := time.Now()
	r := result{Machine: machine}
	for _, g := range groups {
		if !wanted.MatchString(g.name) {
			continue
		}
		from := time.Now()
		figures, err := g.measure(b)
		if err != nil {
			return fmt.Errorf("%s: %w\n%s\n%s", g.name, err, b.LogTail("", 20), b.other.LogTail("", 20))
		}
		fmt.Printf("%s took %.0f s\n%s", g.name, time.Since(from).Seconds(), table(figures))
		r.Figures = append(r.Figures, figures...)
	}
	fmt.Printf("all took %.0f s\n", time.Since(begin).Seconds())
	if *focus != "" {
		return nil
	}
	if err := r.write(filepath.Join(b.build, "bench.json")); err != nil {
		return err
	}
	fmt.Print(table(r.Figures))
	if *docs == "" {
		return nil
	}
	return r.document(*docs)
}

// newID names a container.
func (b *bench) newID() string {
	b.ids++
	return fmt.Sprintf("%s-%d", filepath.Base(b.Dir), b.ids)
}
