package initmode

import "strings"

// Within reports whether a path is dir or lies in it. Both are absolute and
// clean, and their links have been followed.
func Within(name, dir string) bool { return name == dir || Below(name, dir) }

// Below is Within for what is not dir itself.
func Below(name, dir string) bool {
	return name != dir && strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}
