package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrFrameSize is wrapped by the errors about a frame longer than its receiver
// allows. Nothing can be read from a Conn after it.
var ErrFrameSize = errors.New("frame too long")

// headSize is the length of what precedes a frame's body, in bytes.
const headSize = 5

// maxFiles is the most descriptors taken from one read. The kernel closes by
// itself what does not fit the buffer made for them.
const maxFiles = 4

// Stream is what a Conn needs of a unix stream socket. *net.UnixConn has it,
// and so has *os.File, though with deadlines only for a socket that was in
// non-blocking mode when os.NewFile was called on it.
type Stream interface {
	syscall.Conn
	SetDeadline(t time.Time) error
	Close() error
}

// Conn exchanges messages over a stream socket. Send may be called from
// several goroutines at once and so may Send and Receive; Receive belongs to
// one goroutine.
type Conn struct {
	stream   Stream
	maxFrame int
	files    int // how many descriptors are taken from one read

	send sync.Mutex // held while a frame is written; guards sendErr
	// sendErr is the error that left a frame half written. What would be
	// written after it made no sense to the peer.
	sendErr error
}

// NewConn returns a Conn that owns the socket and receives frames of at most
// maxFrame bytes of body. It takes the descriptors that messages carry.
func NewConn(stream Stream, maxFrame int) *Conn {
	return &Conn{stream: stream, maxFrame: maxFrame, files: maxFiles}
}

// ExpectFrames says how long the body of a frame may be that is received from
// now on, in bytes. It belongs to the goroutine that receives.
func (c *Conn) ExpectFrames(most int) { c.maxFrame = most }

// ExpectFiles says how many descriptors are taken with each read from now on,
// at most 4. With 0 the kernel closes what a peer sends, before this process
// has it: to close a descriptor of a FUSE file system itself means to wait for
// its daemon. It belongs to the goroutine that receives.
func (c *Conn) ExpectFiles(n int) { c.files = min(n, maxFiles) }

// SetDeadline sets the time after which Send and Receive fail with an error
// that wraps os.ErrDeadlineExceeded; the zero time means never. A Conn whose
// deadline passed within a frame is of no more use.
func (c *Conn) SetDeadline(t time.Time) error { return c.stream.SetDeadline(t) }

// Close closes the socket. A Receive that waits for a message then fails. It
// may take as long as Drop, for the sake of what the peer has sent last.
func (c *Conn) Close() error { return c.stream.Close() }

// Send writes a message and, with its first byte, copies of the files'
// descriptors. The files stay the caller's. A peer that has gone is an error
// that wraps EPIPE, never a signal.
func (c *Conn) Send(m Message, files ...*os.File) error {
	if most := m.kind().files(); len(files) > most {
		return fmt.Errorf("send %T: %d files, at most %d", m, len(files), most)
	}
	e := encoder{b: make([]byte, headSize, 256)}
	m.encode(&e)
	if e.err != nil {
		return fmt.Errorf("send %T: %w", m, e.err)
	}
	n := len(e.b) - headSize
	if n > MaxFromShim {
		return fmt.Errorf("send %T: %d bytes: %w", m, n, ErrFrameSize)
	}
	binary.LittleEndian.PutUint32(e.b, uint32(n))
	e.b[headSize-1] = byte(m.kind())

	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	c.send.Lock()
	defer c.send.Unlock()
	err := c.write(e.b, fds)
	runtime.KeepAlive(files)
	if err != nil {
		return fmt.Errorf("send %T: %w", m, err)
	}
	return nil
}

// write writes all of b. The descriptors go with the first part the kernel
// takes.
func (c *Conn) write(b []byte, fds []int) error {
	if c.sendErr != nil {
		return c.sendErr
	}
	raw, err := c.stream.SyscallConn()
	if err != nil {
		return err
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for whole := len(b); len(b) > 0; {
		var n int
		var sysErr error
		err := raw.Write(func(fd uintptr) bool {
			n, sysErr = unix.SendmsgN(int(fd), b, oob, nil, unix.MSG_NOSIGNAL)
			return sysErr != unix.EAGAIN
		})
		if err == nil {
			err = sysErr
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			if len(b) < whole {
				c.sendErr = err
			}
			return err
		}
		b = b[n:]
		oob = nil
	}
	return nil
}

// Receive waits for a message and returns it with the files that came along,
// which are the caller's to close and close-on-exec. The error is io.EOF if
// the peer closed the connection between two messages, and io.ErrUnexpectedEOF
// if it did within one. After an error that wraps [ErrMalformed] the next
// message can be received; all others are final. Descriptors a message of its
// kind does not carry are dropped, which may take as long as Drop.
func (c *Conn) Receive() (Message, []*os.File, error) {
	var fds []int
	m, err := c.receive(&fds)
	keep := 0
	if err == nil {
		keep = min(len(fds), m.kind().files())
	}
	var files []*os.File
	for _, fd := range fds[:keep] {
		files = append(files, os.NewFile(uintptr(fd), "received"))
	}
	for _, fd := range fds[keep:] {
		Drop(fileDescriptor(fd)) // nobody has asked for it
	}
	return m, files, err
}

func (c *Conn) receive(fds *[]int) (Message, error) {
	head, err := c.read(nil, headSize, fds)
	if err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head)
	if uint64(n) > uint64(c.maxFrame) {
		return nil, fmt.Errorf("receive %d bytes: %w", n, ErrFrameSize)
	}
	// Grown as the bytes arrive: a peer that merely announces megabytes does
	// not get them.
	body := make([]byte, 0, min(n, 16<<10))
	for len(body) < int(n) {
		step := min(int(n)-len(body), max(cap(body)-len(body), len(body)))
		body, err = c.read(body, step, fds)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
	}
	return decodeMessage(kind(head[headSize-1]), body)
}

// read appends exactly n bytes to b, and never takes one more from the socket:
// the kernel hands over descriptors with the byte they were sent with, so that
// those read within a frame belong to it. It adds at most maxFiles descriptors
// of a frame to fds and closes what is beyond.
func (c *Conn) read(b []byte, n int, fds *[]int) ([]byte, error) {
	raw, err := c.stream.SyscallConn()
	if err != nil {
		return b, err
	}
	start := len(b)
	b = append(b, make([]byte, n)...)
	var oob []byte
	if c.files > 0 {
		oob = make([]byte, unix.CmsgSpace(4*c.files))
	}
	for rest := b[start:]; len(rest) > 0; {
		var got, oobGot int
		var sysErr error
		err := raw.Read(func(fd uintptr) bool {
			got, oobGot, _, _, sysErr = unix.Recvmsg(int(fd), rest, oob, unix.MSG_CMSG_CLOEXEC)
			return sysErr != unix.EAGAIN
		})
		if err == nil {
			err = sysErr
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return b, fmt.Errorf("receive: %w", err)
		}
		if oobGot > 0 {
			if err := takeRights(oob[:oobGot], fds); err != nil {
				return b, fmt.Errorf("receive descriptors: %w", err)
			}
		}
		if got == 0 {
			if len(rest) < n {
				return b, io.ErrUnexpectedEOF
			}
			return b, io.EOF
		}
		rest = rest[got:]
	}
	return b, nil
}

// takeRights adds the descriptors in a control message to fds.
func takeRights(oob []byte, fds *[]int) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		rights, err := unix.ParseUnixRights(&m)
		if err != nil {
			return err
		}
		for _, fd := range rights {
			if len(*fds) < maxFiles {
				*fds = append(*fds, fd)
			} else {
				Drop(fileDescriptor(fd))
			}
		}
	}
	return nil
}
