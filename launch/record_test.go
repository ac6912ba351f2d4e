package launch

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// fullRecord has a value in every field, and bytes in its strings that text
// formats lose.
func fullRecord() Record {
	return Record{
		Args: []string{"-bash", "", "a b", "\n", "%n $HOME \\x41", "\xff\xfe"},
		Env:  []string{"A=hello world", "C=line1\nline2\n", "E=", "K=ü漢\xff", "DUP=1", "DUP=2", "L=" + strings.Repeat("x", 100<<10)},
		Cwd:  "/srv/\xff",
		UID:  1000660000, GID: math.MaxUint32, Groups: []uint32{2000, 3000},
		Umask:           new(uint32(0o77)),
		Capabilities:    &Capabilities{Bounding: 1, Effective: 2, Permitted: 3, Inheritable: 4, Ambient: math.MaxUint64},
		Rlimits:         []Rlimit{{Resource: 7, Soft: 1024, Hard: math.MaxUint64}, {Resource: 4}},
		NoNewPrivileges: true,
		OOMScoreAdj:     new(-1000),
		IOPriority:      &IOPriority{Class: 2, Priority: 7},
		Scheduler:       &Scheduler{Policy: 6, Nice: -20, Priority: 99, Flags: 1, Runtime: 2, Deadline: 3, Period: math.MaxUint64},
		StopSignal:      37,
		Terminal:        true,
		Rows:            24,
		Cols:            80,
	}
}

func TestRecordRoundTrip(t *testing.T) {
	full := fullRecord()
	v := reflect.ValueOf(full)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Fatalf("fullRecord leaves %s empty", v.Type().Field(i).Name)
		}
	}
	for name, want := range map[string]Record{"empty": {}, "full": full} {
		t.Run(name, func(t *testing.T) {
			b, err := want.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			var got Record
			if err := got.Unmarshal(b); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestRecordMarshalRefuses(t *testing.T) {
	for name, r := range map[string]Record{
		"NUL in an argument": {Args: []string{"a\x00b"}},
		"NUL in env":         {Env: []string{"A=\x00"}},
		"NUL in cwd":         {Cwd: "/\x00"},
		"a huge number":      {OOMScoreAdj: new(1 << 40)},
	} {
		t.Run(name, func(t *testing.T) {
			if b, err := r.Marshal(); err == nil {
				t.Errorf("got %q and no error", b)
			}
		})
	}
}

func TestRecordUnmarshalRefuses(t *testing.T) {
	full := fullRecord()
	b, err := full.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	refused := func(t *testing.T, b []byte) {
		t.Helper()
		got := Record{Cwd: "unchanged"}
		if err := got.Unmarshal(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("error %v, want ErrMalformed", err)
		}
		if !reflect.DeepEqual(got, Record{Cwd: "unchanged"}) {
			t.Errorf("the record was changed to %+v", got)
		}
	}
	t.Run("cut short", func(t *testing.T) {
		// Every length near the ends; in between is but the long variable.
		for n := range len(b) {
			if n < 400 || n > len(b)-400 {
				refused(t, b[:n])
			}
		}
	})
	t.Run("longer", func(t *testing.T) { refused(t, append(bytes.Clone(b), 0)) })
	t.Run("a count of 4 GiB", func(t *testing.T) { refused(t, []byte{0xff, 0xff, 0xff, 0xff}) })
	t.Run("a boolean of 2", func(t *testing.T) {
		empty, _ := new(Record).Marshal()
		// args, env, cwd, uid, gid and groups take four bytes each
		empty[24] = 2
		refused(t, empty)
	})
	t.Run("a stop signal of 65", func(t *testing.T) {
		b, _ := (&Record{StopSignal: 65}).Marshal()
		refused(t, b)
	})
}

// TestRecordUnmarshalAllocates feeds counts that fit the input's size as
// closely as counts can, and looks at what is allocated for them.
func TestRecordUnmarshalAllocates(t *testing.T) {
	const size = 1 << 20
	b := make([]byte, size)
	// As many empty arguments as there is room for.
	n := uint32(size/4 - 1)
	b[0], b[1], b[2], b[3] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := new(Record).Unmarshal(b)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, ErrMalformed) {
		t.Errorf("error %v, want ErrMalformed", err)
	}
	got := after.TotalAlloc - before.TotalAlloc
	if got > 6*size {
		t.Errorf("%d bytes allocated for an input of %d", got, size)
	}
}

func FuzzRecord(f *testing.F) {
	full := fullRecord()
	full.Env = nil
	for _, r := range []Record{{}, full} {
		b, err := r.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		if err := r.Unmarshal(b); err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("error %v, want ErrMalformed", err)
			}
			return
		}
		got, err := r.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, b) {
			t.Errorf("%x became %x", b, got)
		}
	})
}
