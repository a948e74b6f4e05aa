package ledger

import "testing"

func TestConsentComesWithTheCommit(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	consents := func() bool {
		t.Helper()
		yes, err := l.Consents(ctx, dice, "F1")
		must(t, err)
		return yes
	}
	c := session(accept(t, l, 1), 1)
	c.Consent = "F1"
	c.Jobs = append(c.Jobs, 999) // refused
	want(t, l.Commit(ctx, c), ErrJobState)
	if consents() {
		t.Error("a refused commit noted a consent")
	}
	c.Jobs = c.Jobs[:1]
	must(t, l.Commit(ctx, c))
	if !consents() {
		t.Error("the consent was not noted")
	}
	must(t, l.Remove(ctx, dice))
	must(t, l.Install(ctx, Bot{Address: dice}))
	if consents() {
		t.Error("a consent outlived its bot")
	}
}
