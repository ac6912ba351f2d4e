package main

import (
	"fmt"
	"slices"
	"time"
)

// figure is what build/bench.json says about one comparison.
type figure struct {
	Figure string  `json:"figure"`
	Unit   string  `json:"unit"`
	Peer   string  `json:"peer"`
	Ours   float64 `json:"ours_median"`
	Theirs float64 `json:"peer_median"`
	Ratio  float64 `json:"ratio"`
	// Target is a bound for the ratio, or for the median itself if it ends
	// with the unit. It is null where a figure is only shown.
	Target *string `json:"target"`
	Met    *bool   `json:"met"`
	Rounds int     `json:"rounds"`
}

// bound is a target: a value is at most, or else at least, the limit.
type bound struct {
	limit    float64
	least    bool
	absolute bool // of our median, not of the ratio
}

func ratioAtMost(limit float64) *bound  { return &bound{limit: limit} }
func ratioAtLeast(limit float64) *bound { return &bound{limit: limit, least: true} }
func atMost(limit float64) *bound       { return &bound{limit: limit, absolute: true} }

// series are the values of one side, a value for each round.
type series []float64

func (s series) median() float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid]
	}
	return (sorted[mid-1] + sorted[mid]) / 2
}

// compare makes a figure. A nil target is none, and a peer with no values is
// none either.
func compare(name, unit, peer string, ours, theirs series, target *bound) figure {
	f := figure{Figure: name, Unit: unit, Peer: peer, Ours: ours.median(), Theirs: theirs.median(), Rounds: len(ours)}
	if f.Theirs != 0 {
		f.Ratio = f.Ours / f.Theirs
	}
	if target == nil {
		return f
	}
	value, sign, suffix := f.Ratio, "<=", ""
	if target.absolute {
		value, suffix = f.Ours, " "+unit
	}
	met := value <= target.limit
	if target.least {
		sign, met = ">=", value >= target.limit
	}
	text := fmt.Sprintf("%s %v%s", sign, target.limit, suffix)
	f.Target, f.Met = &text, &met
	return f
}

// side is one of those that are compared. Its measure returns a value for
// each of the names.
type side struct {
	name    string
	measure func() ([]float64, error)
}

// single is a side with one value.
func single(name string, measure func() (float64, error)) side {
	return side{name, func() ([]float64, error) {
		v, err := measure()
		return []float64{v}, err
	}}
}

// pause lets what the last measurement has left behind come to its end:
// containerd cleans up after a shim when its caller has gone on already.
const pause = 100 * time.Millisecond

// interleave measures all sides in turn, in each round once, after warm-up
// rounds that do not count. The result has the series of each value of each
// side.
func (b *bench) interleave(what string, rounds, warm int, sides ...side) ([][]series, error) {
	if b.cap > 0 {
		rounds, warm = min(rounds, b.cap), min(warm, 1)
	}
	fmt.Printf("%s: %d rounds of %d", what, rounds, len(sides))
	defer fmt.Println()
	all := make([][]series, len(sides))
	for round := -warm; round < rounds; round++ {
		for n := range sides {
			values, err := sides[n].measure()
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", what, sides[n].name, err)
			}
			time.Sleep(pause)
			if round < 0 {
				continue
			}
			if all[n] == nil {
				all[n] = make([]series, len(values))
			}
			for i, v := range values {
				all[n][i] = append(all[n][i], v)
			}
		}
		fmt.Print(".")
	}
	return all, nil
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
