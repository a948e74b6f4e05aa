package install

import (
	"strings"
	"testing"
)

func TestAnAuthorIsToldOfALimit(t *testing.T) {
	h := newHost(t)
	h.append(pack(t, "1"))
	h.process()
	before := len(h.answers())
	h.known = true
	for range 3 { // told once
		if err := h.ledger.Overran(t.Context(), addr, "36s of CPU time an hour", h.installer.Now()); err != nil {
			t.Fatal(err)
		}
		h.tell()
	}
	answers := h.answers()[before:]
	if len(answers) != 1 {
		t.Fatalf("%d answers", len(answers))
	}
	if text := string(answers[0]); !strings.Contains(text, "36s of CPU time an hour") || !strings.Contains(text, "Mayfly-State: over-limit") {
		t.Errorf("the answer is\n%s", text)
	}
	if len(h.letters) != 1 || !strings.Contains(h.letters[0], "36s of CPU time an hour") {
		t.Errorf("letters %q", h.letters)
	}
	if out, err := h.ledger.Outbox(t.Context(), addr, 10); err != nil || len(out) != 1 || out[0].Path != "letter 1" {
		t.Errorf("outbox %+v, %v", out, err)
	}
}
