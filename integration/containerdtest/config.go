package containerdtest

import (
	"fmt"
	"strings"
)

// commonConfig is what all releases understand. What is disabled would use the
// host's files, or is not needed.
const commonConfig = `version = VERSION
root = "DIR/root"
state = "DIR/state"
temp = "DIR/tmp"
imports = []
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.nri.v1.nri", "io.containerd.monitor.container.v1.restart", "io.containerd.internal.v1.restart"]
[debug]
  level = "LEVEL"
[plugins."io.containerd.internal.v1.opt"]
  path = "DIR/opt"
[plugins."io.containerd.image-verifier.v1.bindir"]
  bin_dir = "DIR/image-verifier"
`

// serverConfig is for the versions before 4: the servers are no plugins, and a
// shim's socket is always in /run/containerd/s.
const serverConfig = `[grpc]
  address = "ADDRESS"
[ttrpc]
  address = "EVENTS"
`

const serverPluginConfig = `[plugins."io.containerd.server.v1.grpc"]
  address = "ADDRESS"
[plugins."io.containerd.server.v1.ttrpc"]
  address = "EVENTS"
[plugins."io.containerd.shim.v1.manager"]
  socket_dir = "DIR/s"
`

// config keeps everything of containerd in its folder.
func (d *Daemon) config() string {
	text := commonConfig + serverConfig
	if d.ConfigVersion >= 4 {
		text = commonConfig + serverPluginConfig
		if len(d.ShimEnv) > 0 {
			text += fmt.Sprintf("  env = [\"%s\"]\n", strings.Join(d.ShimEnv, `", "`))
		}
	}
	return strings.NewReplacer(
		"VERSION", fmt.Sprint(d.ConfigVersion), "LEVEL", d.LogLevel,
		"ADDRESS", d.Address(), "EVENTS", d.Events, "DIR", d.Dir,
	).Replace(text)
}
