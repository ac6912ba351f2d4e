package logs

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
)

// However much is told about a container, the log grows by no more than its share, and says that something is missing.
func TestHostLogBounds(t *testing.T) {
	var out bytes.Buffer
	base := logrus.New()
	base.Out = &out
	base.Level = logrus.DebugLevel
	entry := Host(logrus.NewEntry(base).WithField("container", "one"))
	entry.WithField("text", strings.Repeat("x", 10*maxLogLine)).Info("long")
	line := out.String()
	if len(line) != maxLogLine || !strings.HasSuffix(line, "x\n") || strings.Count(line, "\n") != 1 {
		t.Errorf("a long line has %d bytes and ends in %q", len(line), line[len(line)-5:])
	}
	for range 10000 {
		entry.Debug("again")
	}
	if out.Len() > logBurst+logPerSecond*60 || out.Len() < logBurst/2 {
		t.Errorf("the log has %d bytes", out.Len())
	}
	limit := entry.Logger.Out.(*boundedOutput)
	limit.limit.SetLimit(1 << 30) // a long time later
	for range 2 {
		entry.Info("later")
	}
	if text := out.String(); strings.Count(text, "more told about it") != 1 || strings.Count(text, "later") != 2 || !strings.Contains(text, "container=one") {
		t.Errorf("the end of the log is %q", text[len(text)-1000:])
	}
	other := Host(logrus.NewEntry(base).WithField("container", "two"))
	out.Reset()
	other.Info("quiet")
	if !strings.Contains(out.String(), "quiet") {
		t.Error("one container's share is another's")
	}
}
