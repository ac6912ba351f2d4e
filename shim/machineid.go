package shim

import (
	"crypto/sha256"
	"encoding/hex"
)

// machineID derives an id from a container's name that is the same each time
// the container is started, in the form of machine-id(5): 32 hex digits of a
// random UUID (RFC 9562, version 4 bits set).
func machineID(namespace, id string) string {
	sum := sha256.Sum256([]byte("containerd-shim-rich\x00" + namespace + "\x00" + id))
	sum[6] = sum[6]&0x0f | 0x40
	sum[8] = sum[8]&0x3f | 0x80
	return hex.EncodeToString(sum[:16])
}
