package launch

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

var messages = []Message{
	Hello{Version: Version, Role: RoleService},
	Event{Name: "reboot"},
	Start{Record: fullRecord(), Stay: true},
	Refuse{Reason: "it has ended"},
	Started{PID: 42},
	Failed{Code: 127, Reason: `exec "foo": executable file not found in $PATH`},
	Console{},
	Signal{Number: 64},
	Exited{Status: 255, Requested: true},
	Component{Name: "node-exporter"},
	Limits{},
	Run{
		Record: fullRecord(), Ready: []string{"/bin/check", ""}, ReadyPort: 9100, Restart: RestartAlways,
		Delay: time.Second, MaxDelay: time.Minute, StopTimeout: time.Hour,
	},
	Ready{},
	ComponentExited{Code: 255, Signal: 64, Again: -1},
	ComponentExited{Again: 1, Requested: true},
	Hold{},
	Line{Text: "hello\xff"},
}

func encode(m Message) []byte {
	var e encoder
	m.encode(&e)
	return e.b
}

func TestMessageRoundTrip(t *testing.T) {
	for _, want := range messages {
		got, err := decodeMessage(want.kind(), encode(want))
		if err != nil {
			t.Errorf("%T: %v", want, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestMark(t *testing.T) {
	if want := fmt.Sprintf("version %d ", Version); !strings.Contains(Mark, want) {
		t.Errorf("the mark is %q, want it to have %q", Mark, want)
	}
}

// A Hello of any version tells that version, whatever follows.
func TestT5HelloOfOtherVersion(t *testing.T) {
	for _, tc := range []struct {
		body []byte
		want Hello
	}{
		{[]byte{0xe7, 3}, Hello{Version: 999}},
		{[]byte{0xe7, 3, 3, 0, 0, 0, 'a', 'p', 'p'}, Hello{999, RoleService}},
		{[]byte{0xe7, 3, 3, 0, 0, 0, 'a', 'p', 'p', 1, 2, 3}, Hello{999, RoleService}},
		{[]byte{0xe7, 3, 0xff, 0xff, 0xff, 0xff, 'a'}, Hello{Version: 999}},
		{[]byte{1, 0, 5, 0, 0, 0, 'e', 'v', 'e', 'n', 't'}, Hello{EventVersion, RoleEvent}},
	} {
		if got, err := decodeMessage(kindHello, tc.body); err != nil || got != tc.want {
			t.Errorf("%v: got %+v, %v, want %+v", tc.body, got, err, tc.want)
		}
	}
	for _, body := range [][]byte{nil, {1}, {Version, 0}, {Version, 0, 0, 0, 0, 0, 1}} {
		if got, err := decodeMessage(kindHello, body); !errors.Is(err, ErrMalformed) {
			t.Errorf("%v: got %+v, %v", body, got, err)
		}
	}
}

func TestMessageRefuses(t *testing.T) {
	for name, m := range map[string]Message{
		"process 0":     Started{},
		"process -1":    Started{PID: -1},
		"signal 0":      Signal{},
		"signal 65":     Signal{Number: 65},
		"signal -1":     Signal{Number: -1},
		"status 256":    Exited{Status: 256},
		"exit code 256": Failed{Code: 256},
		"ended 256":     ComponentExited{Code: 256},
		"ended by 65":   ComponentExited{Signal: 65},
		"ended by 2^31": ComponentExited{Signal: 1 << 31},
		"restart 3":     Run{Restart: 3},
		"delay -1":      Run{Delay: -1},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := decodeMessage(m.kind(), encode(m)); !errors.Is(err, ErrMalformed) {
				t.Errorf("got %+v, %v, want ErrMalformed", got, err)
			}
		})
	}
	t.Run("an unknown type", func(t *testing.T) {
		for _, k := range []kind{0, kindExited + 1, kindComponent - 1, kindLine + 1, 255} {
			if got, err := decodeMessage(k, nil); !errors.Is(err, ErrMalformed) {
				t.Errorf("type %d: got %+v, %v, want ErrMalformed", k, got, err)
			}
		}
	})
}

func FuzzMessage(f *testing.F) {
	for _, m := range messages {
		switch m.(type) {
		case Start:
			m = Start{}
		case Run:
			m = Run{ReadyPort: 1}
		}
		f.Add(uint8(m.kind()), encode(m))
	}
	f.Add(uint8(0), []byte("garbage"))
	f.Fuzz(func(t *testing.T, k uint8, body []byte) {
		m, err := decodeMessage(kind(k), body)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("error %v, want ErrMalformed", err)
			}
			return
		}
		if h, ok := m.(Hello); ok && h.Version != Version && h.Version != EventVersion {
			return // what follows the version is skipped
		}
		if got := encode(m); uint8(m.kind()) != k || !bytes.Equal(got, body) {
			t.Errorf("type %d, %x became type %d, %x", k, body, m.kind(), got)
		}
	})
}
