package session

import (
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
)

// A bot that was installed when the operator granted more runs within what the operator grants now.
func TestInstalledBotsKeepTheOperatorsLimits(t *testing.T) {
	limits := DefaultLimits()
	limits.Most = bot.Limits{Memory: 64e6, Wall: 2 * time.Second}
	r := New(Options{Limits: limits})
	m := bot.Manifest{Runtime: bot.RuntimeJS, Main: "main.js", Limits: bot.Limits{Memory: 128e6, Wall: 30 * time.Second}}
	spec, err := r.BotSpec(m)
	if err != nil || spec.Memory != 64e6 || spec.CPU != 7*time.Second {
		t.Errorf("%d bytes, %v of CPU time, %v", spec.Memory, spec.CPU, err)
	}
	more, err := New(Options{Limits: DefaultLimits()}).Memory(ledger.Bot{Manifest: m})
	less, err2 := r.Memory(ledger.Bot{Manifest: m})
	if err != nil || err2 != nil || more-less != 64e6 {
		t.Errorf("slots count %d bytes instead of %d, %v, %v", less, more, err, err2)
	}
	m.Limits.Memory = 32e6
	if spec, err := r.BotSpec(m); err != nil || spec.Memory != 32e6 {
		t.Errorf("who asks for less gets %d, %v", spec.Memory, err)
	}
}
