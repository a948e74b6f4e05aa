package session

import (
	"context"
	"errors"
	"fmt"
	"syscall"
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

// TestWhoseFaultItIs: what core does not survive, or does not come to an end with, is the bot's where core had worked for it.
func TestWhoseFaultItIs(t *testing.T) {
	stopped, stop := context.WithCancel(t.Context())
	stop()
	undrained := errors.New("core did not finish within 15s")
	for name, test := range map[string]struct {
		ctx   context.Context
		err   error
		asked string
		want  culprit
	}{
		"core is not drained, of the mail":       {t.Context(), undrained, "", mails},
		"core is not drained, of a call":         {t.Context(), undrained, "send_msg", bots},
		"core hangs, after a call":               {t.Context(), fmt.Errorf("core: %w", context.DeadlineExceeded), "set_config", bots},
		"the bot's sandbox died by itself":       {t.Context(), ownDeath{undrained}, "send_msg", mails},
		"the bot failed":                         {t.Context(), &runFailed{}, "send_msg", hosts},
		"no sandbox could be made":               {t.Context(), fmt.Errorf("x: %w", host(undrained)), "send_msg", hosts},
		"the disk is full":                       {t.Context(), fmt.Errorf("account: %w", syscall.ENOSPC), "send_msg", hosts},
		"the daemon is told to end during a run": {stopped, undrained, "send_msg", hosts},
	} {
		if got := whose(test.ctx, test.err, test.asked); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}
