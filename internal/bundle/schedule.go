package bundle

import (
	"fmt"
	"strings"
	"time"

	"mayfly/internal/schedule"
)

// maxSchedules bounds the schedules of a bot.
const maxSchedules = 10

// schedules are the lines of crontab(5) by which the bot is run. What is wrong with one leaves the gaps of the others to be checked
// when that is mended.
func (t *table) schedules(least time.Duration) []string {
	tables := t.subs("schedule")
	if len(tables) > maxSchedules {
		t.fault("schedule", fmt.Sprintf("more than %d schedules", maxSchedules), "leave some out")
		return nil
	}
	var lines []string
	var parsed []schedule.Schedule
	for _, entry := range tables {
		line, s := entry.cron()
		entry.close()
		if s != nil {
			lines, parsed = append(lines, line), append(parsed, *s)
		}
	}
	if clash := schedule.FindClash(parsed, least, schedule.Thorough); clash != nil && len(parsed) == len(tables) {
		tables[clash.Of].fault("cron", tooDense(*clash, least), fmt.Sprintf("leave %s between any two runs, such as cron = %q", FormatGap(least), sparse(least)))
	}
	return lines
}

// cron reads one line; nil is a fault.
func (t *table) cron() (string, *schedule.Schedule) {
	const fix = `cron = "0 8 * * *", which is minute, hour, day, month, day of the week, in UTC`
	line, ok := t.required("cron", fix)
	if !ok {
		return "", nil
	}
	s, err := schedule.Parse(line)
	if err != nil {
		t.fault("cron", fmt.Sprintf("cron %q: %s", printable(line), printable(err.Error())), "write "+fix)
		return "", nil
	}
	return line, &s
}

func tooDense(c schedule.Clash, least time.Duration) string {
	at := c.At.Format("2006-01-02 15:04")
	if c.Gap == 0 {
		return fmt.Sprintf("at %s UTC another [[schedule]] runs the bot, too, and the operator's ceiling is one run in %s", at, FormatGap(least))
	}
	return fmt.Sprintf("the run at %s UTC is %s after the one before, and the operator's ceiling is one run in %s", at, FormatGap(c.Gap), FormatGap(least))
}

// sparse is a schedule that keeps a gap.
func sparse(least time.Duration) string {
	switch {
	case least <= time.Minute:
		return "* * * * *"
	case least <= time.Hour:
		return "0 * * * *"
	case least <= 24*time.Hour:
		return "0 8 * * *"
	}
	return "0 8 1 1 *"
}

// FormatGap writes a duration as an operator does: 1h, not 1h0m0s.
func FormatGap(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
