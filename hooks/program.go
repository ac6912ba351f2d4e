package hooks

import (
	"bytes"
	"errors"
	"fmt"
	"path"
)

// MaxHead is how much of a program the kernel looks at to find out how to
// execute it, in bytes (BINPRM_BUF_SIZE, execve(2)).
const MaxHead = 256

// What is wrong with the first bytes of a program. Each says the way out.
var (
	errEmpty   = errors.New("it is empty")
	errFormat  = errors.New("it has no interpreter line and is no ELF program; begin a script with a line such as #!/bin/sh")
	errBOM     = errors.New("it begins with a byte order mark, which the kernel does not take for an interpreter line; save it without")
	errNoName  = errors.New("its interpreter line names no program; write a line such as #!/bin/sh")
	errCRLF    = errors.New("its interpreter line ends with a carriage return (CRLF line ends), which becomes part of the name; save it with LF line ends")
	errTooLong = fmt.Errorf("its interpreter line is longer than %d bytes", MaxHead)
)

// Interpreter says by which program the kernel executes one whose first bytes
// are head: none for an ELF program. An error says why it would not.
func Interpreter(head []byte) (string, error) {
	head = head[:min(len(head), MaxHead)]
	switch {
	case len(head) == 0:
		return "", errEmpty
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		return "", nil
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf#!")):
		return "", errBOM
	case !bytes.HasPrefix(head, []byte("#!")):
		return "", errFormat
	}
	line, _, ended := bytes.Cut(head[2:], []byte("\n"))
	if !ended && len(head) == MaxHead {
		return "", errTooLong
	}
	if bytes.HasSuffix(line, []byte("\r")) {
		return "", errCRLF
	}
	words := bytes.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
	if len(words) == 0 {
		return "", errNoName
	}
	name := string(words[0])
	if !path.IsAbs(name) {
		name = path.Join("/", name) // hooks run in /
	}
	return name, nil
}
