package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
)

// fillRun makes the container's /run/rich writable, and fills it with bytes and with files.
const fillRun = `
mount -o remount,rw,bind /run/rich || mount -o remount,rw /run/rich || echo refused
dd if=/dev/zero of=/run/rich/fill bs=1M count=48 2>/dev/null
i=0; while [ $i -lt 3000 ] && mkdir /run/rich/d$i 2>/dev/null; do i=$((i+1)); done
rm -f /run/rich/fill; dd if=/dev/zero of=/run/rich/again bs=1M count=48 2>/dev/null
ls -1 /run/rich | wc -l
echo filled
`

// used is how much is below a folder, in bytes and in files.
func used(t *testing.T, dir string) (bytes int64, files int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
		files++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes, files
}

// mountsBelow are the host's mounts at or below a path.
func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	for _, line := range readLines(t, "/proc/self/mountinfo") {
		if point := strings.Fields(line)[4]; point == dir || strings.HasPrefix(point, dir+"/") {
			found = append(found, line)
		}
	}
	return found
}

// What a container writes to /run/rich is little, and goes with it.
func TestT10RunIsBounded(t *testing.T) {
	t.Parallel()
	forEach(t, mostInits, func(t *testing.T, v variant) {
		var extra []taskOption
		if v.init == "dumb-init" {
			extra = append(extra, withRich("on-exit", "keep"))
		}
		cmd := withArgs("sh", "-c", "trap 'exit 5' TERM; "+fillRun+idle)
		run, log := watch(t, v.image, v.with(append(extra, withSpec(oci.WithAddedCapabilities([]string{"CAP_SYS_ADMIN"})), cmd)...)...)
		run.WaitOutput("filled", runLimit)
		if got := run.Stdout.String(); strings.Contains(got, "refused") {
			t.Fatalf("the container could not try: %s", got)
		}
		const most, mostFiles = 1 << 20, 500
		if bytes, files := used(t, run.bundle("rich")); bytes > most+programsSize(t) || files > mostFiles {
			t.Errorf("the container has put %d bytes in %d files into the bundle, at most %d in %d are right", bytes, files, most, mostFiles)
		}
		// All is still as it was for the shim.
		if got := run.Exec("echo", "there"); got.Stdout != "there\n" {
			t.Errorf("exec: %+v", got)
		}
		bundle := run.bundle()
		run.Kill(syscall.SIGKILL)
		run.outcome(log, 137)
		if found := mountsBelow(t, bundle); len(found) > 0 {
			t.Errorf("mounts are left:\n%s", strings.Join(found, "\n"))
		}
		if _, err := os.Lstat(bundle); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the bundle is left: %v", err)
		}
	})
}

// programsSize is how much the programs of the host take, which the bundle shows.
func programsSize(t *testing.T) int64 {
	bytes, _ := used(t, buildPath("bin"))
	return bytes
}

// The mount goes with a shim that is killed, too, and a container that does not need it has none.
func TestT10RunOfKilledShim(t *testing.T) {
	t.Parallel()
	run, log := watch(t, imageBookworm, withInit("systemd"), withArgs("sh", "-c", ready+idle))
	run.WaitOutput("ready", runLimit)
	bundle := run.bundle()
	if found := mountsBelow(t, run.bundle("rich/run")); len(found) != 1 || !strings.Contains(found[0], " - tmpfs ") || strings.Contains(found[0], "shared:") {
		t.Errorf("the mounts of the run directory are %q", found)
	}
	run.killed(log, 137)
	eventually(t, runLimit, "the end of the mounts", func() error {
		if found := mountsBelow(t, bundle); len(found) > 0 {
			return fmt.Errorf("mounts are left:\n%s", strings.Join(found, "\n"))
		}
		return nil
	})

	small := startTask(t, imageBusybox, withInit("dumb-init"), withArgs("sh", "-c", ready+idle))
	small.WaitOutput("ready", runLimit)
	if _, err := os.Lstat(small.bundle("rich/run")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a run directory that nobody uses: %v", err)
	}
	small.Kill(syscall.SIGKILL)
	small.Wait(runLimit)
	small.Delete()
}
