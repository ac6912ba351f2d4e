// Compare reads the results that foreign test suites got on two runtimes,
// prints them side by side, and fails when a test passes with the first and
// not with the second.
//
// Each argument is one comparison, SUITE/VARIANT=FIRST,SECOND: two files that
// are JUnit reports (.xml) or logs of go test -v=test2json.
//
// A file of exceptions lists tests that may be worse, with the reason:
//
//	SUITE TEST
//		why, in one or more indented lines
//
// An exception that is not needed is an error, so that none outlives its
// reason. Where the reason begins with "Sometimes skipped:" it need not be
// needed, and a test that fails is not excepted.
package main

import (
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
)

// The ways a test ends.
const (
	passed  = "passed"
	failed  = "failed"
	skipped = "skipped"
	// unfinished is a test that started, and the log says no more.
	unfinished = "unfinished"
	// missing is a test that only the other run has.
	missing = "missing"
)

// results are what became of each test, by name.
type results map[string]string

func (r results) count(outcome string) int {
	n := 0
	for _, o := range r {
		if o == outcome {
			n++
		}
	}
	return n
}

func (r results) outcome(test string) string {
	if o := r[test]; o != "" {
		return o
	}
	return missing
}

func read(path string) (results, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	parse := readLog
	if filepath.Ext(path) == ".xml" {
		parse = readJUnit
	}
	r, err := parse(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(r) == 0 {
		return nil, fmt.Errorf("%s: no test in it", path)
	}
	return r, nil
}

// readJUnit reads what ginkgo writes with --ginkgo.junit-report.
func readJUnit(in io.Reader) (results, error) {
	var report struct {
		Suites []struct {
			Cases []struct {
				Name   string `xml:"name,attr"`
				Status string `xml:"status,attr"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.NewDecoder(in).Decode(&report); err != nil {
		return nil, err
	}
	r := results{}
	for _, suite := range report.Suites {
		for _, c := range suite.Cases {
			// What surrounds the tests counts only when it goes wrong.
			name, isTest := strings.CutPrefix(c.Name, "[It] ")
			switch c.Status {
			case "passed":
				if isTest {
					r[name] = passed
				}
			case "skipped", "pending":
				if isTest {
					r[name] = skipped
				}
			default:
				r[name] = failed
			}
		}
	}
	return r, nil
}

// Go marks the lines that matter with this byte, because a test's own output
// may lack the newline before one.
var (
	started  = regexp.MustCompile(`\x16=== RUN +(\S+)`)
	finished = regexp.MustCompile(`\x16 *--- (PASS|FAIL|SKIP): (\S+) \(`)
)

// readLog reads the output of a test binary that ran with -test.v=test2json.
func readLog(in io.Reader) (results, error) {
	text, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	r := results{}
	for _, m := range started.FindAllSubmatch(text, -1) {
		r[string(m[1])] = unfinished
	}
	for _, m := range finished.FindAllSubmatch(text, -1) {
		r[string(m[2])] = map[string]string{"PASS": passed, "FAIL": failed, "SKIP": skipped}[string(m[1])]
	}
	return r, nil
}

// exceptions are reasons, by suite and test.
type exceptions map[string]map[string]string

func readExceptions(path string) (exceptions, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	all := exceptions{}
	var suite, test string
	for line := range strings.Lines(string(text)) {
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || strings.HasPrefix(trimmed, "#"):
		case line[0] != ' ' && line[0] != '\t':
			suite, test, _ = strings.Cut(trimmed, " ")
			if all[suite] == nil {
				all[suite] = map[string]string{}
			}
			all[suite][test] = ""
		case test == "":
			return nil, fmt.Errorf("%s: %q belongs to no test", path, trimmed)
		default:
			all[suite][test] = strings.TrimSpace(all[suite][test] + " " + trimmed)
		}
	}
	for suite, tests := range all {
		for test, reason := range tests {
			if test == "" || reason == "" {
				return nil, fmt.Errorf("%s: %s %s: want a test and a reason", path, suite, test)
			}
		}
	}
	return all, nil
}

// sometimes begins the reason of a test that depends on who is faster in what
// neither runtime is part of.
const sometimes = "Sometimes skipped:"

// comparison is one suite on two runtimes.
type comparison struct {
	suite, variant string
	first, second  results
}

func (c comparison) title() string { return c.suite + ", " + c.variant }

// lost returns the tests that pass with the first runtime and not with the
// second.
func (c comparison) lost() []string {
	var tests []string
	for test, outcome := range c.first {
		if outcome == passed && c.second[test] != passed {
			tests = append(tests, test)
		}
	}
	slices.Sort(tests)
	return tests
}

// neither returns the tests that the first runtime does not pass either.
func (c comparison) neither() []string {
	all := maps.Clone(c.first)
	maps.Copy(all, c.second)
	maps.DeleteFunc(all, func(test, _ string) bool { return c.first[test] == passed })
	return slices.Sorted(maps.Keys(all))
}

func parseComparison(argument string) (comparison, error) {
	title, files, ok := strings.Cut(argument, "=")
	suite, variant, ok2 := strings.Cut(title, "/")
	first, second, ok3 := strings.Cut(files, ",")
	if !ok || !ok2 || !ok3 {
		return comparison{}, fmt.Errorf("argument %q: want SUITE/VARIANT=FIRST,SECOND", argument)
	}
	c := comparison{suite: suite, variant: variant}
	var err error
	if c.first, err = read(first); err != nil {
		return c, err
	}
	c.second, err = read(second)
	return c, err
}

// report prints the comparisons and returns what is wrong.
func report(out io.Writer, names [2]string, comparisons []comparison, allowed exceptions) (wrong []string) {
	needed := exceptions{}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "suite\truntime\t%s\t%s\t%s\tworse\texcepted\n", passed, failed, skipped)
	for _, c := range comparisons {
		row := func(name string, r results, rest string) {
			fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%s\n", c.title(), name,
				r.count(passed), r.count(failed)+r.count(unfinished), r.count(skipped), rest)
		}
		worse, excepted := 0, 0
		for _, test := range c.lost() {
			reason, ok := allowed[c.suite][test]
			if ok && (!strings.HasPrefix(reason, sometimes) || c.second.outcome(test) == skipped) {
				excepted++
				if needed[c.suite] == nil {
					needed[c.suite] = map[string]string{}
				}
				needed[c.suite][test] = c.second.outcome(test)
				continue
			}
			worse++
			wrong = append(wrong, fmt.Sprintf("%s: %s, passed with %s: %s", c.title(), c.second.outcome(test), names[0], test))
		}
		row(names[0], c.first, "\t")
		row(names[1], c.second, fmt.Sprintf("%d\t%d", worse, excepted))
	}
	if err := table.Flush(); err != nil {
		wrong = append(wrong, err.Error())
	}

	for _, c := range comparisons {
		if tests := c.neither(); len(tests) > 0 {
			fmt.Fprintf(out, "\n%s: not passed with %s\n", c.title(), names[0])
			for _, test := range tests {
				fmt.Fprintf(out, "  %s, with %s %s: %s\n", c.first.outcome(test), names[1], c.second.outcome(test), test)
			}
		}
	}
	for _, suite := range slices.Sorted(maps.Keys(allowed)) {
		if !slices.ContainsFunc(comparisons, func(c comparison) bool { return c.suite == suite }) {
			continue
		}
		fmt.Fprintf(out, "\n%s: excepted\n", suite)
		for _, test := range slices.Sorted(maps.Keys(allowed[suite])) {
			outcome, ok := needed[suite][test]
			if !ok && strings.HasPrefix(allowed[suite][test], sometimes) {
				outcome, ok = "not needed", true
			}
			if !ok {
				wrong = append(wrong, fmt.Sprintf("%s: the exception for %s is not needed", suite, test))
				continue
			}
			fmt.Fprintf(out, "  %s: %s: %s\n", outcome, test, allowed[suite][test])
		}
	}
	if len(wrong) > 0 {
		fmt.Fprintf(out, "\nWORSE\n")
		for _, line := range wrong {
			fmt.Fprintf(out, "  %s\n", line)
		}
	}
	return wrong
}

func run() (ok bool, err error) {
	first := flag.String("first", "first", "name of the first runtime")
	second := flag.String("second", "second", "name of the second runtime")
	file := flag.String("exceptions", "", "file of exceptions")
	flag.Parse()
	var allowed exceptions
	if *file != "" {
		if allowed, err = readExceptions(*file); err != nil {
			return false, err
		}
	}
	var comparisons []comparison
	for _, argument := range flag.Args() {
		c, err := parseComparison(argument)
		if err != nil {
			return false, err
		}
		comparisons = append(comparisons, c)
	}
	return len(report(os.Stdout, [2]string{*first, *second}, comparisons, allowed)) == 0, nil
}

func main() {
	ok, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}
