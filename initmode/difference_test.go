package initmode_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// fields are the members of a JSON document by their paths, as jq(1) writes
// them. A list is one field.
type fields map[string]json.RawMessage

func fieldsOf(t testing.TB, document any) fields {
	t.Helper()
	var data bytes.Buffer
	encoder := json.NewEncoder(&data)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(document); err != nil {
		t.Fatal(err)
	}
	found := fields{}
	found.add(t, "", bytes.TrimSpace(data.Bytes()))
	return found
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (f fields) add(t testing.TB, path string, value json.RawMessage) {
	t.Helper()
	if value[0] != '{' || string(value) == "{}" {
		f[path] = value
		return
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(value, &members); err != nil {
		t.Fatal(err)
	}
	for name, member := range members {
		if identifier.MatchString(name) {
			f.add(t, path+"."+name, member)
		} else {
			f.add(t, path+"["+strconv.Quote(name)+"]", member)
		}
	}
}

// elements are those of a field that is a list.
func elements(value json.RawMessage) (list []json.RawMessage) {
	_ = json.Unmarshal(value, &list) // what is no list has none
	return list
}

// difference is what has to go from before, and what has to come, for it to
// become after. Of lists that share an element those that differ are named,
// by their places before and after.
func difference(before, after fields) []string {
	var lines []string
	all := maps.Clone(before)
	maps.Copy(all, after)
	for _, path := range slices.Sorted(maps.Keys(all)) {
		old, hadOld := before[path]
		now, hasNow := after[path]
		if hadOld && hasNow {
			if bytes.Equal(old, now) {
				continue
			}
			if changed, shared := listDifference(path, elements(old), elements(now)); shared {
				lines = append(lines, changed...)
				continue
			}
		}
		if hadOld {
			lines = append(lines, fmt.Sprintf("- %s %s", path, old))
		}
		if hasNow {
			lines = append(lines, fmt.Sprintf("+ %s %s", path, now))
		}
	}
	return lines
}

// listDifference keeps the longest common subsequence.
func listDifference(path string, old, now []json.RawMessage) (lines []string, shared bool) {
	// common[i][j] is the length of the one of old[i:] and now[j:].
	common := make([][]int, len(old)+1)
	for i := range common {
		common[i] = make([]int, len(now)+1)
	}
	for i := len(old) - 1; i >= 0; i-- {
		for j := len(now) - 1; j >= 0; j-- {
			if bytes.Equal(old[i], now[j]) {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	for i, j := 0, 0; i < len(old) || j < len(now); {
		switch {
		case i < len(old) && j < len(now) && bytes.Equal(old[i], now[j]):
			i, j = i+1, j+1
		case j == len(now) || i < len(old) && common[i+1][j] >= common[i][j+1]:
			lines = append(lines, fmt.Sprintf("- %s[%d] %s", path, i, old[i]))
			i++
		default:
			lines = append(lines, fmt.Sprintf("+ %s[%d] %s", path, j, now[j]))
			j++
		}
	}
	return lines, common[0][0] > 0
}

var changedElement = regexp.MustCompile(`^(.*)\[(\d+)\]$`)

// apply is the inverse of difference.
func apply(t testing.TB, before fields, lines []string) fields {
	t.Helper()
	after := maps.Clone(before)
	shift := map[string]int{} // how much longer a list has become
	for _, line := range lines {
		path, value, _ := strings.Cut(line[2:], " ")
		comes := line[0] == '+'
		if element := changedElement.FindStringSubmatch(path); element != nil {
			at, err := strconv.Atoi(element[2])
			if err != nil {
				t.Fatal(err)
			}
			path = element[1]
			list := elements(after[path])
			if comes {
				list = slices.Insert(list, at, json.RawMessage(value))
				shift[path]++
			} else {
				list = slices.Delete(list, at+shift[path], at+shift[path]+1)
				shift[path]--
			}
			after[path] = listOf(list)
		} else if delete(after, path); comes {
			after[path] = json.RawMessage(value)
		}
	}
	return after
}

// listOf is the inverse of elements.
func listOf(list []json.RawMessage) json.RawMessage {
	texts := make([]string, len(list))
	for i, element := range list {
		texts[i] = string(element)
	}
	return json.RawMessage("[" + strings.Join(texts, ",") + "]")
}
