package logs

import (
	"time"

	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"
)

const (
	// logBurst and then logPerSecond bytes of the host's log are for one
	// container: nearly all that is told there a container can bring about as
	// often as it likes.
	logBurst     = 32 << 10
	logPerSecond = 64
	// maxLogLine bounds a line in bytes. What is longer is cut, so that it is
	// never mixed with another shim's (pipe(7), PIPE_BUF).
	maxLogLine = 4 << 10
	// lostLine is what a line about lost ones takes, in bytes.
	lostLine = 512
)

// Host returns a log like base for what is told about one container.
func Host(base *log.Entry) *log.Entry {
	from := base.Logger
	return logrus.NewEntry(&logrus.Logger{
		Out:       &boundedOutput{base: base, limit: rate.NewLimiter(logPerSecond, logBurst)},
		Hooks:     from.Hooks,
		Formatter: from.Formatter,
		Level:     from.GetLevel(),
		ExitFunc:  from.ExitFunc,
	}).WithFields(base.Data)
}

// boundedOutput takes formatted lines of one container. Its logger calls it
// from one goroutine at a time.
type boundedOutput struct {
	base  *log.Entry
	limit *rate.Limiter
	lost  int // lines since the last that got through
}

func (o *boundedOutput) Write(line []byte) (int, error) {
	n := len(line)
	if n > maxLogLine {
		line = append(line[:maxLogLine-1:maxLogLine-1], '\n')
	}
	cost := len(line)
	if o.lost > 0 {
		cost += lostLine
	}
	if !o.limit.AllowN(time.Now(), cost) {
		o.lost++
		return n, nil
	}
	if o.lost > 0 {
		o.base.WithField("lines", o.lost).Warn("the container has had more told about it than fits the log")
		o.lost = 0
	}
	_, err := o.base.Logger.Out.Write(line)
	return n, err
}
