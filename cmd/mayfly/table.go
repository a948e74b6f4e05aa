package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"mayfly/internal/admin"
	"mayfly/internal/bot"
)

// printer writes answers for people.
type printer struct {
	w      io.Writer
	colour bool
	now    func() time.Time
}

// newPrinter uses colour only on a terminal, and not where NO_COLOR is set.
func newPrinter(w io.Writer) printer {
	p := printer{w: w, now: time.Now}
	if f, ok := w.(*os.File); ok && os.Getenv("NO_COLOR") == "" {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		p.colour = err == nil
	}
	return p
}

// cell is one of a table. Bad ones are red on a terminal.
type cell struct {
	text string
	bad  bool
}

func plain(text string) cell { return cell{text: text} }

func number(n int) cell { return cell{text: fmt.Sprint(n)} }

// faults is a number that is better 0.
func faults(n int) cell { return cell{text: fmt.Sprint(n), bad: n > 0} }

// table writes rows with aligned columns, the first row being the heads.
func (p printer) table(heads string, rows [][]cell) error {
	var head []cell
	for _, h := range strings.Split(heads, ",") {
		head = append(head, plain(h))
	}
	rows = append([][]cell{head}, rows...)
	widths := make([]int, len(head))
	for _, row := range rows {
		for i := range row {
			row[i].text = clean(row[i].text)
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, c := range row {
			p.cell(&b, c)
			b.WriteString(strings.Repeat(" ", widths[i]+2-utf8.RuneCountInString(c.text)))
		}
		if _, err := fmt.Fprintln(p.w, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

func (p printer) cell(b *strings.Builder, c cell) {
	if c.bad && p.colour {
		b.WriteString("\x1b[31m" + c.text + "\x1b[0m")
		return
	}
	b.WriteString(c.text)
}

// clean makes a line of foreign words: what authors and relays write is not to move the cursor.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) && !unicode.IsSpace(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return strings.Join(strings.Fields(s), " ")
}

// ago is how long ago something was, or "never".
func (p printer) ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return span(p.now().Sub(t)) + " ago"
}

// until is how long until something is, "now" where that is past, and "on mail" where nothing is.
func (p printer) until(t time.Time) string {
	switch {
	case t.IsZero():
		return "on mail"
	case !t.After(p.now()):
		return "now"
	}
	return "in " + span(t.Sub(p.now()))
}

// span is a time to one unit.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, d/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2fs", d.Seconds()) }

func (p printer) bots(bots []admin.Bot) error {
	var rows [][]cell
	for _, b := range bots {
		state := cell{b.State, b.State != admin.StateOK}
		if b.Why != "" {
			state.text += " " + b.Why
		}
		rows = append(rows, []cell{plain(string(b.Address)), plain(b.Name), plain(b.Version), plain(p.ago(b.LastRun)), plain(p.until(b.NextRun)), number(b.Runs), faults(b.Errors),
			faults(b.SetAside), number(b.Unsent), plain(bot.RoundSize(b.Disk)), plain(b.Contact), state})
	}
	return p.table("ADDRESS,NAME,VERSION,LAST RUN,NEXT RUN,RUNS/DAY,ERRORS/DAY,SET ASIDE,UNSENT,DISK,CONTACT,STATE", rows)
}

func (p printer) runs(answer admin.Runs) error {
	var rows [][]cell
	for _, r := range answer.Runs {
		jobs := strings.Trim(fmt.Sprint(r.Jobs), "[]")
		if r.Record.Schedule != "" {
			jobs = r.Record.Schedule // the line of crontab
		}
		status := cell{string(r.Record.Status), r.Record.Status != bot.RunOK || !r.Committed}
		rows = append(rows, []cell{plain(fmt.Sprint(r.ID)), plain(string(r.Bot)), plain(jobs), plain(p.ago(r.Ended)), status, plain(seconds(r.Record.CPU)),
			plain(seconds(r.Record.Wall)), plain(bot.RoundSize(r.Record.Memory)), plain(yesNo(r.Committed)), plain(short(said(r.Record)))})
	}
	if err := p.table("RUN,BOT,JOBS,ENDED,STATUS,CPU,WALL,MEMORY,COMMITTED,MESSAGE", rows); err != nil || len(answer.SetAside) == 0 {
		return err
	}
	rows = nil
	for _, s := range answer.SetAside {
		rows = append(rows, []cell{plain(fmt.Sprint(s.Job)), plain(string(s.Bot)), plain(p.ago(s.Accepted)), number(s.Attempts), plain(bot.RoundSize(s.Size)),
			plain(short(s.Why)), plain(fmt.Sprintf("mayfly runs --replay %d", s.Job))})
	}
	fmt.Fprintln(p.w)
	return p.table("SET ASIDE,BOT,CAME,ATTEMPTS,SIZE,WHY,TO TRY IT AGAIN", rows)
}

// said is a run's message, and what it could not send.
func said(r bot.RunRecord) string {
	return strings.Trim(r.Missing()+"; "+r.Message, "; ")
}

// short is the beginning of a text.
func short(s string) string {
	const most = 100
	s = clean(s)
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}

func (p printer) usage(u admin.Usage) error {
	var rows [][]cell
	for _, b := range u.Bots {
		rows = append(rows, []cell{plain(string(b.Bot)), plain(seconds(b.CPUHour)), plain(seconds(b.CPUDay)), plain(seconds(b.CoreDay)), number(b.InHour),
			number(b.InDay), number(b.RunsDay), plain(bot.RoundSize(b.Disk))})
	}
	if err := p.table("BOT,CPU/HOUR,CPU/DAY,CORE/DAY,MAILS/HOUR,MAILS/DAY,RUNS/DAY,DISK", rows); err != nil {
		return err
	}
	return p.whole(u.Host)
}

// whole prints what all bots take of what they may.
func (p printer) whole(u admin.HostUsage) error {
	of := func(most string, there bool) string {
		if !there {
			return ""
		}
		return " of " + most
	}
	_, err := fmt.Fprintf(p.w, "\nthe host: %d bots%s; %s of accounts, folders and bundles%s, %s of ledger, %s are free; %s of CPU time in the last hour%s\n",
		u.Bots, of(fmt.Sprint(u.MaxBots), u.MaxBots > 0), bot.RoundSize(u.Disk), of(bot.RoundSize(u.MaxDisk), u.MaxDisk > 0), bot.RoundSize(u.Ledger),
		bot.RoundSize(u.Free), u.CPU.Round(time.Second), of(u.MaxCPU.String(), u.MaxCPU > 0))
	if err == nil && u.Over != "" {
		var b strings.Builder
		p.cell(&b, cell{fmt.Sprintf("all bots wait until %s: %s", u.OverTill.UTC().Format("15:04 MST"), u.Over), true})
		_, err = fmt.Fprintln(p.w, b.String())
	}
	return err
}

// log prints a run and what it wrote.
func (p printer) log(r admin.Run) error {
	head := fmt.Sprintf("%s run %d: %s", r.Started.UTC().Format(time.RFC3339), r.ID, r.Record.Status)
	if r.Record.Message != "" {
		head += ": " + r.Record.Message
	}
	var b strings.Builder
	p.cell(&b, cell{clean(head), r.Record.Status != bot.RunOK})
	b.WriteString("\n")
	for line := range strings.Lines(r.Record.Log) {
		b.WriteString("  " + printableLine(line) + "\n")
	}
	_, err := io.WriteString(p.w, b.String())
	return err
}

// printableLine keeps the blanks of a line that a bot wrote, and nothing that moves the cursor.
func printableLine(line string) string {
	line = strings.ToValidUTF8(strings.TrimRight(line, "\r\n"), "?")
	return strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, line)
}

// removed prints what went with a bot, and to warn what did not go as it should.
func (p printer) removed(warn io.Writer) func(admin.Removed) error {
	return func(r admin.Removed) error {
		text := fmt.Sprintf("removed %s, with all that it stored: %s of bundles, account and folder, its keys, and %d mails that were not sent yet",
			r.Bot, bot.RoundSize(r.Disk), r.Unsent)
		if r.Ended {
			text += "; the session that was under way was ended"
		}
		_, err := fmt.Fprintln(p.w, text)
		if r.Note != "" {
			fmt.Fprintln(warn, "mayfly:", clean(r.Note))
		}
		return err
	}
}

func (p printer) outbox(mails []admin.Waiting) error {
	var rows [][]cell
	for _, m := range mails {
		next := cell{text: "now"}
		switch {
		case m.GivenUp:
			next = cell{"given up", true}
		case m.Next.After(p.now()):
			next.text = "in " + span(m.Next.Sub(p.now()))
		}
		to := fmt.Sprintf("%d recipients", len(m.To))
		if len(m.To) == 1 {
			to = string(m.To[0])
		}
		rows = append(rows, []cell{plain(string(m.Bot)), plain(to), plain(bot.RoundSize(m.Size)), plain(p.ago(m.Said)), number(m.Tries), next, plain(short(m.LastError))})
	}
	return p.table("BOT,TO,SIZE,SAID,TRIES,NEXT TRY,LAST ERROR", rows)
}

func (p printer) retried(r admin.Retried) error {
	_, err := fmt.Fprintf(p.w, "mails that are tried now: %d\n", r.Mails)
	if err == nil && r.Note != "" {
		_, err = fmt.Fprintln(p.w, r.Note)
	}
	return err
}
