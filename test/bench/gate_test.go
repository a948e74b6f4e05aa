//go:build bench

package bench

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"mayfly/internal/bot"
	"mayfly/internal/gate"
)

const samples = "../../internal/gate/testdata" // its README says what they are

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sample(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(samples, name))
	must(t, err)
	return b
}

func dearmored(t testing.TB, name string) []byte {
	t.Helper()
	block, err := armor.Decode(bytes.NewReader(sample(t, name)))
	must(t, err)
	b, err := io.ReadAll(block.Body)
	must(t, err)
	return b
}

// gateKeys is what the samples' bot knows after its first contact.
func gateKeys(t testing.TB) *gate.Keys {
	t.Helper()
	contact, err := openpgp.ReadKeyRing(bytes.NewReader(dearmored(t, "user2-secret.asc")))
	must(t, err)
	var public bytes.Buffer
	must(t, contact[0].Serialize(&public))
	keys, err := gate.NewKeys("bot000002@chat.test", bot.AccountState{
		Readable: true, SelfKeys: [][]byte{dearmored(t, "bot2-secret.asc")}, PublicKeys: [][]byte{public.Bytes()},
		AuthTokens: []string{"mtlmg9S1NgHae8FVqCbg9M2N"}, InviteNumbers: []string{"an-invite-number"},
	})
	must(t, err)
	return keys
}

// judged is a mail, the verdict that it must get, and what that took.
type judged struct {
	name, file string
	kind       gate.Kind
	reason     gate.Reason
	mail       []byte
	times      []time.Duration
	cpu        time.Duration
}

// measureGate checks every mail n times, in turns of 25, in one goroutine.
func measureGate(t *testing.T, n int) []Row {
	const turn = 25
	keys := gateKeys(t)
	mails := []*judged{
		{name: "a message, let pass", file: "eml/5-text.user.eml", kind: gate.Message},
		{name: "cleartext", file: "abuse/abuse-01.eml", kind: gate.Refused, reason: gate.Cleartext},
		{name: "not OpenPGP", file: "abuse/abuse-13.eml", kind: gate.Refused, reason: gate.NotOpenPGP},
		{name: "encrypted to another", file: "abuse/abuse-03.eml", kind: gate.Refused, reason: gate.NotForUs},
		{name: "unsigned", file: "abuse/abuse-04.eml", kind: gate.Refused, reason: gate.Unsigned},
		{name: "unknown signer", file: "abuse/abuse-06.eml", kind: gate.Refused, reason: gate.UnknownSigner},
		{name: "tampered", file: "abuse/abuse-10.eml", kind: gate.Refused, reason: gate.Tampered},
		{name: "replay", file: "abuse/abuse-15.eml", kind: gate.Replay},
	}
	for _, m := range mails {
		m.mail = sample(t, m.file)
	}
	for done := 0; done < n; done += turn {
		for _, m := range mails {
			before := processCPU(t)
			for range min(turn, n-done) {
				m.check(t, keys)
			}
			m.cpu += processCPU(t) - before
		}
	}
	var rows []Row
	for _, m := range mails {
		rows = append(rows, Row{Name: "gate: " + m.name, Times: m.times, Base: mails[0].times, CPU: m.cpu / time.Duration(n)})
	}
	return rows
}

func (m *judged) check(t *testing.T, keys *gate.Keys) {
	finished := func(bot.Fingerprint, string) bool { return m.kind == gate.Replay }
	start := time.Now()
	v := gate.Check(m.mail, keys, finished, gate.DefaultBounds())
	m.times = append(m.times, time.Since(start))
	if v.Kind != m.kind || v.Reason != m.reason {
		t.Fatalf("%s: %+v", m.file, v)
	}
}

// processCPU is the time that this process has spent on CPUs, its garbage collection included.
func processCPU(t testing.TB) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
