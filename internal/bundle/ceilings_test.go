package bundle

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"mayfly/internal/bot"
)

// Whatever a manifest may ask for that an operator bounds, more than the bound is refused, with the line and the ceiling. A field without
// a line here is one that nobody has thought of.
func TestTheOperatorsCeilingsWin(t *testing.T) {
	c := DefaultCeilings()
	c.Memory, c.Wall, c.ScheduleGap = 50e6, 7*time.Second, 90*time.Minute
	c.PerUser = bot.PerUser{MailsPerHour: 11, MailsPerDay: 12, SecondsPerHour: 13, BytesPerHour: 2e6}
	c.Sending = bot.Sending{Mails: 21, Bytes: 3e6, MailsPerContact: 22, BytesPerContact: 4e6, Attachment: 1e6}
	asked := map[string]struct{ table, line, ceiling string }{
		"Limits.Memory":           {"limits", `memory = "51MB"`, "50MB"},
		"Limits.Wall":             {"limits", `wall = "8s"`, "7s"},
		"PerUser.MailsPerHour":    {"limits.per_user", "mails_per_hour = 12", "11"},
		"PerUser.MailsPerDay":     {"limits.per_user", "mails_per_day = 13", "12"},
		"PerUser.SecondsPerHour":  {"limits.per_user", "seconds_per_hour = 14", "13"},
		"PerUser.BytesPerHour":    {"limits.per_user", `bytes_per_hour = "3MB"`, "2MB"},
		"Sending.Mails":           {"limits.sending", "mails_per_hour = 22", "21"},
		"Sending.Bytes":           {"limits.sending", `bytes_per_hour = "4MB"`, "3MB"},
		"Sending.MailsPerContact": {"limits.sending", "mails_per_hour_and_contact = 23", "22"},
		"Sending.BytesPerContact": {"limits.sending", `bytes_per_hour_and_contact = "5MB"`, "4MB"},
		"Sending.Attachment":      {"limits.sending", `attachment = "2MB"`, "1MB"},
		"ScheduleGap":             {"[schedule]", `cron = "0 * * * *"`, "one run in 1h30m"},
	}
	fields := []string{"ScheduleGap"}
	for _, of := range []any{bot.Limits{}, bot.PerUser{}, bot.Sending{}} {
		for f := range reflect.TypeOf(of).Fields() {
			if k := f.Type.Kind(); k == reflect.Int || k == reflect.Int64 {
				fields = append(fields, reflect.TypeOf(of).Name()+"."+f.Name)
			}
		}
	}
	const manifest = "name = \"Dice\"\nversion = \"1\"\ncontact = \"author@example.org\"\nruntime = \"js\"\nmain = \"main.js\"\n"
	for _, field := range fields {
		ask, ok := asked[field]
		if !ok {
			t.Errorf("nobody has said what asks for more %s than the operator grants", field)
			continue
		}
		_, err := FromFiles(with(fmt.Sprintf("%s[%s]\n%s\n", manifest, ask.table, ask.line)), c)
		key, _, _ := strings.Cut(ask.line, " ")
		if err == nil || !strings.HasPrefix(err.Error(), "bot.toml:7:1: ") || !strings.Contains(err.Error(), "the operator's ceiling") ||
			!strings.Contains(err.Error(), ask.ceiling) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v; want bot.toml:7:1, %s, and the ceiling %s", field, err, key, ask.ceiling)
		}
	}
	b, err := FromFiles(with(manifest), c) // who asks for nothing gets the ceilings
	if err != nil || b.Manifest.Limits != (bot.Limits{Memory: c.Memory, Wall: c.Wall}) || b.Manifest.PerUser != c.PerUser || b.Manifest.Sending != c.Sending {
		t.Errorf("%+v, %v", b.Manifest, err)
	}
}
