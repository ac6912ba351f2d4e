// Package life holds every fact about how the command of a container begins and
// ends, and decides what follows from them: facts in, actions out, and in the end
// one verdict.
//
// It reads, writes and sends nothing, and starts no goroutine. Whoever brings a
// fact gets back what is to be done, and does it without holding anything. So
// the order of two facts is that in which they came here, and nothing that a
// container holds up keeps the next one from being heard.
package life
