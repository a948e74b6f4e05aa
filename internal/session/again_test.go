package session

import (
	"testing"

	"mayfly/internal/bot"
)

func TestWhichRunsAreTriedAgain(t *testing.T) {
	for name, test := range map[string]struct {
		record   bot.RunRecord
		attempts int
		want     bool
	}{
		"EX_TEMPFAIL":               {bot.RunRecord{Status: bot.RunError, ExitCode: 75}, 4, true},
		"another exit code":         {bot.RunRecord{Status: bot.RunError, ExitCode: 74}, 1, false},
		"killed":                    {bot.RunRecord{Status: bot.RunSignal, ExitSig: 9}, 1, true},
		"killed again":              {bot.RunRecord{Status: bot.RunSignal, ExitSig: 9}, 2, false},
		"its own memory limit":      {bot.RunRecord{Status: bot.RunSignal, ExitSig: 9, OOMKilled: true}, 1, false},
		"its own fault":             {bot.RunRecord{Status: bot.RunSignal, ExitSig: 11}, 1, false},
		"its own time":              {bot.RunRecord{Status: bot.RunTimeout, ExitSig: 9}, 1, false},
		"75 after the limit of CPU": {bot.RunRecord{Status: bot.RunTimeout, ExitCode: 75}, 1, false},
	} {
		if got := again(test.record, test.attempts); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
