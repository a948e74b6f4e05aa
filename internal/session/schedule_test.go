package session

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"mayfly/internal/ledger"
)

func TestPostings(t *testing.T) {
	for printed, want := range map[string]string{
		"":                                    "[]",
		"\n \n":                               "[]",
		"To: 12\n\nGood morning!\n":           `[{[12] "\nGood morning!\n"}]`,
		"\nTo:12 , 15\r\nTwo\nlines":          `[{[12 15] "Two\nlines"}]`,
		"To: 12\none\nTo: 15\ntwo\n":          `[{[12] "one\n"} {[15] "two\n"}]`,
		"To: 12\nTo: me, it is far\n":         `[{[12] "To: me, it is far\n"}]`,
		"To: 12\n":                            `[{[12] ""}]`,
		"Good morning!":                       "no chat",
		"To: ada@chat.test\nGood morning!":    "no chat",
		"To: 99999999999\nGood morning!":      "no chat",
		"Good morning!\nTo: 12\nGood evening": "no chat",
	} {
		list, err := postings(printed)
		got := make([]string, len(list))
		for i, p := range list {
			got[i] = fmt.Sprintf("{%v %q}", p.chats, p.text)
		}
		text := "[" + strings.Join(got, " ") + "]"
		if errors.Is(err, errNoChat) {
			text = "no chat"
		}
		if text != want {
			t.Errorf("%q: %s, want %s", printed, text, want)
		}
	}
}

func FuzzPostings(f *testing.F) {
	for _, printed := range []string{"To: 12, 15\n\nHello\nTo: 3\n", "To: 4294967296\n", "hello", "To:\n", "To: 1\r\n\xff"} {
		f.Add(printed)
	}
	f.Fuzz(func(t *testing.T, printed string) {
		list, err := postings(printed)
		length := 0
		for _, p := range list {
			if length += len(p.text); len(p.chats) == 0 {
				t.Errorf("%q: %q to nobody", printed, p.text)
			}
		}
		if length > len(printed) || err != nil && len(list) > 0 {
			t.Errorf("%q: %v, %v", printed, list, err)
		}
	})
}

// What scripts and programs are told of the first run of a schedule, and of a later one.
func TestWhatIsToldOfASchedule(t *testing.T) {
	s := &Schedule{Instant: ledger.Instant{Cron: "0 8 * * *", At: time.Unix(1_800_000_000, 0)}}
	if e := s.event(); e["cron"] != s.Cron || e["scheduledTime"] != int64(1_800_000_000_000) || e["lastRun"] != nil {
		t.Errorf("the first: %v", e)
	}
	if env := strings.Join(s.env(), " "); env != "MAYFLY_SCHEDULE=0 8 * * * MAYFLY_SCHEDULED_TIME=1800000000" {
		t.Errorf("the first: %s", env)
	}
	s.Last = time.Unix(1_700_000_000, 500_000_000)
	if e := s.event(); e["lastRun"] != int64(1_700_000_000_500) {
		t.Errorf("a later one: %v", e)
	}
	if env := s.env(); env[2] != "MAYFLY_LAST_RUN=1700000000" {
		t.Errorf("a later one: %v", env)
	}
	if env := (*Schedule)(nil).env(); env != nil {
		t.Errorf("for a message: %v", env)
	}
}
