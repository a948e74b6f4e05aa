// Package bench measures what Mayfly promises to be cheap, and prints one table. `make bench` runs it, on a real Postfix and
// Dovecot (test/relay), as root:
//
//   - the gate: time and CPU of one goroutine for one junk mail, by verdict, against a mail that is let pass;
//   - the start of programs, bare and in their sandboxes: a script, interpreters, core;
//   - a delivery by LMTP with Mayfly's hook off, on, and with a receiver that hangs;
//   - a mail to a bot that sleeps in Mayfly against one to the same bot as a resident: a core of its own, kept in IDLE;
//   - a mail to one of very many bots, whose CPU time it is, and what a host with many bots costs at rest;
//   - mails that wait for a bot, with a session each and with several in one.
//
// What is compared is measured by turns in one run, so that the machine's load meets all of it alike; the ratios mean more than
// the times. The table says how busy the machine was: a busy one makes p95 worthless first, then the rest.
package bench

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// Row is a line of the table.
type Row struct {
	Name  string
	Times []time.Duration
	Base  []time.Duration // what the ratio is to, median by median; nil: no ratio
	CPU   time.Duration   // of the process, for each of Times; 0: not measured
}

// Head prints the names of the columns.
func Head(w io.Writer) {
	fmt.Fprintf(w, "%-50s %5s %10s %10s %7s %9s %9s\n", "", "n", "median ms", "p95 ms", "ratio", "1/s", "CPU ms")
}

// Print prints the rows. The column 1/s is how many there would be in a second, one after the other.
func Print(w io.Writer, rows []Row) {
	for _, r := range rows {
		fmt.Fprintf(w, "%-50s %5d %10.3f %10.3f %7s %9s %9s\n", r.Name, len(r.Times),
			ms(Quantile(r.Times, 0.5)), ms(Quantile(r.Times, 0.95)), r.ratio(), r.rate(), r.cpu())
	}
}

func (r Row) ratio() string {
	if r.Base == nil {
		return ""
	}
	return fmt.Sprintf("%.2f", float64(Quantile(r.Times, 0.5))/float64(Quantile(r.Base, 0.5)))
}

func (r Row) rate() string {
	if r.CPU == 0 {
		return ""
	}
	var sum time.Duration
	for _, t := range r.Times {
		sum += t
	}
	return fmt.Sprintf("%.0f", float64(len(r.Times))/sum.Seconds())
}

func (r Row) cpu() string {
	if r.CPU == 0 {
		return ""
	}
	return fmt.Sprintf("%.3f", ms(r.CPU))
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Quantile is the smallest of times that a share q of them does not exceed. There must be at least one.
func Quantile(times []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	i := 0
	for float64(i+1) < q*float64(len(sorted)) {
		i++
	}
	return sorted[i]
}
