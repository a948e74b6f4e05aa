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
}
