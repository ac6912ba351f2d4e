package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
)

// ErrMalformed is wrapped by every error about bytes that are not what their
// sender should have written. A Conn is still in step with its peer after it:
// the frame that held the bytes has been read whole.
var ErrMalformed = errors.New("malformed message")

// encoder appends values in the one form decoder takes back: integers in
// little endian, strings and lists behind an uint32 count, an optional value
// behind a boolean. It keeps the first error, so that a caller checks once.
type encoder struct {
	b   []byte
	err error
}

func (e *encoder) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

func (e *encoder) uint8(v uint8)   { e.b = append(e.b, v) }
func (e *encoder) uint16(v uint16) { e.b = binary.LittleEndian.AppendUint16(e.b, v) }
func (e *encoder) uint32(v uint32) { e.b = binary.LittleEndian.AppendUint32(e.b, v) }
func (e *encoder) uint64(v uint64) { e.b = binary.LittleEndian.AppendUint64(e.b, v) }
func (e *encoder) int32(v int32)   { e.uint32(uint32(v)) }

func (e *encoder) bool(v bool) {
	if v {
		e.uint8(1)
	} else {
		e.uint8(0)
	}
}

// int carries a Go int in 32 bits: all the kernel's own types for these
// values are int.
func (e *encoder) int(v int) {
	if v < math.MinInt32 || v > math.MaxInt32 {
		e.fail(fmt.Errorf("encode %d: out of range", v))
		return
	}
	e.int32(int32(v))
}

func (e *encoder) count(n int) {
	if uint64(n) > math.MaxUint32 {
		e.fail(fmt.Errorf("encode a list of %d: out of range", n))
		return
	}
	e.uint32(uint32(n))
}

func (e *encoder) string(s string) {
	if strings.IndexByte(s, 0) >= 0 {
		// The kernel would end the string there; better no process than
		// one with a shortened argument.
		e.fail(fmt.Errorf("encode %.64q: holds a NUL byte", s))
		return
	}
	e.count(len(s))
	e.b = append(e.b, s...)
}

func (e *encoder) strings(list []string) {
	e.count(len(list))
	for _, s := range list {
		e.string(s)
	}
}

// decoder takes apart what encoder wrote. The input may come from a hostile
// peer: no count is believed before the bytes it speaks of are seen to be
// there. After the first error every read yields zero.
type decoder struct {
	// s is a string and not a byte slice so that all strings of a message
	// share the one copy made of its bytes.
	s   string
	err error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrMalformed, what)
		d.s = ""
	}
}

func (d *decoder) take(n int) string {
	if n > len(d.s) {
		d.fail("cut short")
		return ""
	}
	s := d.s[:n]
	d.s = d.s[n:]
	return s
}

// little reads an unsigned integer of n bytes.
func (d *decoder) little(n int) (v uint64) {
	s := d.take(n)
	for i := len(s) - 1; i >= 0; i-- {
		v = v<<8 | uint64(s[i])
	}
	return v
}

func (d *decoder) uint8() uint8   { return uint8(d.little(1)) }
func (d *decoder) uint16() uint16 { return uint16(d.little(2)) }
func (d *decoder) uint32() uint32 { return uint32(d.little(4)) }
func (d *decoder) uint64() uint64 { return d.little(8) }
func (d *decoder) int32() int32   { return int32(d.uint32()) }
func (d *decoder) int() int       { return int(d.int32()) }

func (d *decoder) bool() bool {
	switch d.uint8() {
	case 0:
		return false
	case 1:
		return true
	default:
		d.fail("a boolean that is neither 0 nor 1")
		return false
	}
}

// count reads the length of a list whose elements take at least size bytes
// each, and refuses one the rest of the input cannot hold.
func (d *decoder) count(size int) int {
	n := d.uint32()
	if uint64(n)*uint64(size) > uint64(len(d.s)) {
		d.fail("a count beyond the end")
		return 0
	}
	return int(n)
}

func (d *decoder) string() string {
	s := d.take(d.count(1))
	if strings.IndexByte(s, 0) >= 0 {
		d.fail("a NUL byte in a string")
		return ""
	}
	return s
}

func (d *decoder) strings() []string {
	n := d.count(4)
	if n == 0 {
		return nil
	}
	list := make([]string, 0, n)
	for range n {
		list = append(list, d.string())
	}
	return list
}

// end returns the first error, or one about bytes left over.
func (d *decoder) end() error {
	if d.s != "" {
		d.fail("bytes after the end")
	}
	return d.err
}
