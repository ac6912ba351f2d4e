package main

import (
	"slices"
	"syscall"
	"testing"

	"containerd-shim-rich/launch"
)

// orderToStay is order for a launcher that is to wait for the next one.
func (s *shim) orderToStay(r launch.Record) {
	s.t.Helper()
	files := slices.Clone(s.cmdStdio)
	s.send(launch.Start{Record: r, Stay: true}, files...)
}

func (s *shim) expect(want launch.Message) {
	s.t.Helper()
	if m := s.receive(); m != want {
		s.t.Errorf("got %+v, want %+v", m, want)
	}
}

func (s *shim) started() {
	s.t.Helper()
	if m, ok := s.receive().(launch.Started); !ok {
		s.t.Fatalf("got %+v, want Started", m)
	}
}

func TestStay(t *testing.T) {
	s := serve(t)
	s.orderToStay(sh("echo one; exit 7"))
	s.started()
	s.expect(launch.Exited{Status: 7})
	// Without a command this is for nobody.
	s.send(launch.Signal{Number: int(syscall.SIGUSR1)})
	s.orderToStay(launch.Record{Args: []string{"/no/such/program"}, Cwd: "/"})
	if m, ok := s.receive().(launch.Failed); !ok || m.Code != exitNotFound {
		t.Errorf("got %+v, want Failed", m)
	}
	s.orderToStay(sh("echo three; trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"))
	s.started()
	for _, f := range s.cmdStdio {
		f.Close()
	}
	read := make([]byte, 0, 1<<10)
	for !slices.Contains([]string{"ready\n"}, string(read[max(0, len(read)-6):])) {
		n, err := s.stdout.Read(read[len(read):cap(read)])
		if err != nil {
			t.Fatal(err)
		}
		read = read[:len(read)+n]
	}
	if string(read) != "one\nthree\nready\n" {
		t.Errorf("stdout %q", read)
	}
	// The init's request ends both.
	s.signal(syscall.SIGTERM)
	s.exited(5, true)
}

func TestStayUntilStopped(t *testing.T) {
	s := serve(t)
	s.orderToStay(sh("exit 7"))
	s.started()
	s.expect(launch.Exited{Status: 7})
	// Without a command it is for nobody. Before an order it could be for the next
	// command: the launcher hears of signals and orders on separate ways.
	s.signal(syscall.SIGHUP)
	s.signal(syscall.SIGTERM)
	s.expect(launch.Exited{Status: 7, Requested: true})
	s.ended(0)
}

// A shim that is gone gives no more orders, but the init has its service.
func TestStayWithoutShim(t *testing.T) {
	s := serve(t)
	s.orderToStay(sh("exit 7"))
	s.started()
	s.expect(launch.Exited{Status: 7})
	s.conn.Close()
	s.signal(syscall.SIGUSR1)
	if err := s.launcher.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the launcher has left: %v", err)
	}
	s.signal(syscall.SIGTERM)
	if err := s.launcher.Wait(); err != nil {
		t.Errorf("%v: %s", err, s.log.String())
	}
}

// Who is the command's user already may lack every capability.
func TestStartAsOneself(t *testing.T) {
	for name, test := range map[string]struct {
		record launch.Record
		code   uint32
	}{
		"the same user":  {launch.Record{UID: 1234, GID: 1234, Groups: []uint32{8, 7}}, 0},
		"another group":  {launch.Record{UID: 1234, GID: 1234, Groups: []uint32{7}}, exitCannot},
		"root":           {launch.Record{Groups: []uint32{7, 8}}, exitCannot},
		"another gid":    {launch.Record{UID: 1234, GID: 5, Groups: []uint32{7, 8}}, exitCannot},
		"no more groups": {launch.Record{UID: 1234, GID: 1234}, exitCannot},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, "setpriv", "--reuid=1234", "--regid=1234", "--groups=7,8")
			r := sh("exit 0")
			r.UID, r.GID, r.Groups = test.record.UID, test.record.GID, test.record.Groups
			s.order(r)
			if test.code == 0 {
				s.started()
				s.exited(0, false)
				return
			}
			if m, ok := s.receive().(launch.Failed); !ok || m.Code != test.code {
				t.Errorf("got %+v, want Failed with %d", m, test.code)
			}
			s.ended(int(test.code))
		})
	}
}
