package hooks

import (
	"maps"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-rich/life"
)

// The two options whose hooks run in a container.
const (
	Prestart = "prestart"
	Poststop = "poststop"
)

// Environment is what a hook's environment holds beside that of the command. ending
// is nil before the command has ended.
func Environment(option, container string, ending *life.Ending) []string {
	env := []string{"RICH_HOOK=" + option, "RICH_CONTAINER=" + container}
	if ending == nil {
		return env
	}
	return append(env,
		"RICH_EXIT_CODE="+strconv.FormatUint(uint64(ending.Code), 10),
		"RICH_EXIT_SIGNAL="+ending.Signal(),
		"RICH_EXIT_REASON="+ending.Reason,
		"RICH_DURATION="+ending.Seconds(),
	)
}

// annotationPrefix begins the annotations that the state of a stopped
// container has for the host's hooks.
const annotationPrefix = "containerd-shim-rich."

// annotationReason holds the reason.
const annotationReason = annotationPrefix + "exit-reason"

// endingAnnotations tell the host's hooks how the command ended.
func endingAnnotations(e life.Ending) map[string]string {
	return map[string]string{
		annotationPrefix + "exit-code":   strconv.FormatUint(uint64(e.Code), 10),
		annotationPrefix + "exit-signal": e.Signal(),
		annotationReason:                 e.Reason,
		annotationPrefix + "duration":    e.Seconds(),
	}
}

// Annotated adds to the state that the host's hooks get how the command ended.
func Annotated(state specs.State, e life.Ending) specs.State {
	annotations := maps.Clone(state.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	maps.Copy(annotations, endingAnnotations(e))
	state.Annotations = annotations
	return state
}
