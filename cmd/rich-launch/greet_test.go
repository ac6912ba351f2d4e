package main

import (
	"strings"
	"testing"

	"containerd-shim-rich/launch"
)

// A launcher that the shim does not fit starts nothing, ends with 125 and says why.
func TestT5ShimOfOtherVersion(t *testing.T) {
	for role, args := range map[string][]string{
		launch.RoleService: {"app"}, launch.RoleChild: {"command", "name"}, launch.RoleComponent: {"component", "name"},
	} {
		for what, tc := range map[string]struct {
			answer []launch.Message
			want   string
		}{
			"another version": {[]launch.Message{launch.Hello{Version: launch.Version + 1, Role: launch.RoleShim}}, "the shim has version 3 of the launch protocol"},
			"a refusal":       {[]launch.Message{launch.Refuse{Reason: "you are too old"}}, "you are too old"},
			"no version":      {[]launch.Message{launch.Start{Record: launch.Record{Args: []string{"true"}}}}, "the shim answered with launch.Start"},
			"nothing":         {nil, "shim"},
		} {
			t.Run(role+" "+what, func(t *testing.T) {
				t.Parallel()
				s := meet(t, role, append([]string{launcher}, args...))
				if role == launch.RoleComponent {
					s.receive() // its name
				}
				for _, m := range tc.answer {
					s.send(m)
				}
				s.conn.Close()
				_ = s.launcher.Wait() // its status says all
				if status := s.launcher.ProcessState.ExitCode(); status != exitLauncher {
					t.Errorf("exit status %d, want %d", status, exitLauncher)
				}
				if got := s.log.String(); !strings.Contains(got, tc.want) {
					t.Errorf("it says %q, want %q", got, tc.want)
				}
			})
		}
	}
}
