//go:build relay

package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"

	"mayfly/internal/bot"
	"mayfly/internal/install"
	"mayfly/internal/keystore"
	"mayfly/internal/ledger"
	"mayfly/internal/mailbox"
)

// TestThousandIdleBots starts a host with 1,000 bots and the hook. It looks at all of them, with few connections at a time, and then
// holds none; a mail for one of them is worked off within the hook's time all the same.
func TestThousandIdleBots(t *testing.T) {
	const bots = 1000
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r := Start(t)
	var addresses []bot.Address
	for i := range bots {
		addresses = append(addresses, bot.Address(fmt.Sprintf("bot%06d@chat.test", i)))
	}
	makeAccounts(t, ctx, r, addresses)
	h := configure(t, r, byHook(r))
	l := h.seed(ctx, addresses, addresses[bots/2])

	start := time.Now()
	h.start(r)
	most := 0
	for seen := 0; seen < bots; time.Sleep(50 * time.Millisecond) {
		must(t, ctx.Err())
		most = max(most, connections(t, r.IMAPTLS))
		for seen < bots {
			f, err := l.Folder(ctx, addresses[seen])
			must(t, err)
			if f.Inbox == 0 {
				break
			}
			seen++
		}
	}
	looked := time.Since(start)
	awaitNoConnection(t, ctx, r)
	t.Logf("%d bots were looked at %v after the start, with %d connections at most; the daemon has %d MB", bots, looked.Round(time.Millisecond), most, h.memory())
	if most > 32 { // 16, and those that are just being closed
		t.Errorf("%d connections at a time", most)
	}

	must(t, r.Deliver(addresses[bots/2], text("junk")))
	awaitRefusal(t, ctx, l, addresses[bots/2])
	if n := connections(t, r.IMAPTLS); n > 1 {
		t.Errorf("%d connections while one bot has had mail", n)
	}
}

// TestPollIsTheNet has a relay whose hook never tells. The host, which counts on it, finds the mail when it looks by itself.
func TestPollIsTheNet(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	r := StartWith(t, Config{NoHook: true})
	makeAccounts(t, ctx, r, []bot.Address{dice})
	h := configure(t, r, byHook(r)+"\npoll = \"1m\"")
	l := h.seed(ctx, []bot.Address{dice}, dice)
	h.start(r)
	h.awaitReady()
	awaitNoConnection(t, ctx, r) // it has looked at the start
	must(t, r.Deliver(dice, text("junk")))
	awaitRefusal(t, ctx, l, dice)
}

// seed puts bots into the host's ledger as if they had been installed, and the samples' key into the key store for one of them.
func (h *host) seed(ctx context.Context, addresses []bot.Address, withKey bot.Address) *ledger.Ledger {
	h.t.Helper()
	state := filepath.Join(h.dir, "state")
	must(h.t, os.Mkdir(state, 0o700))
	l, err := ledger.Open(ctx, filepath.Join(state, "ledger.db"))
	must(h.t, err)
	h.t.Cleanup(func() { must(h.t, l.Close()) })
	for _, address := range addresses {
		must(h.t, l.Install(ctx, ledger.Bot{Address: address, Manifest: bot.Manifest{Name: "Bot"}, Digest: "0"}))
	}
	keys, err := keystore.Open(filepath.Join(state, "keys"))
	must(h.t, err)
	must(h.t, errors.Join(keys.PutKeys(withKey, [][]byte{secretKey(h.t)}), keys.Close()))
	return l
}

// awaitRefusal waits until a cleartext mail was refused.
func awaitRefusal(t *testing.T, ctx context.Context, l *ledger.Ledger, address bot.Address) {
	t.Helper()
	for refused := int64(0); refused == 0; time.Sleep(20 * time.Millisecond) {
		must(t, ctx.Err())
		refusals, err := l.Refusals(ctx, address)
		must(t, err)
		refused = refusals["cleartext"]
	}
}

// secretKey is that of the samples' bot.
func secretKey(t *testing.T) []byte {
	t.Helper()
	f, err := os.Open("../../internal/gate/testdata/bot2-secret.asc")
	must(t, err)
	defer f.Close()
	block, err := armor.Decode(f)
	must(t, err)
	key, err := io.ReadAll(block.Body)
	must(t, err)
	return key
}

// makeAccounts logs in to each for the first time, and makes its folder Bot.
func makeAccounts(t *testing.T, ctx context.Context, r *Relay, addresses []bot.Address) {
	t.Helper()
	var group sync.WaitGroup
	next := make(chan bot.Address)
	for range 8 {
		group.Go(func() {
			for address := range next {
				c, err := mailbox.Dial(ctx, mailbox.Server{Addr: r.IMAP, TLS: mailbox.Plain}, mailbox.Login{Username: string(address), Password: password})
				if err != nil {
					t.Error(err)
					continue
				}
				if err := errors.Join(c.Create(ctx, install.Folder), c.Close()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, address := range addresses {
		next <- address
	}
	close(next)
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// connections counts the established TCP connections to a loopback address, as the kernel lists them.
func connections(t *testing.T, address string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	must(t, err)
	n, err := strconv.Atoi(port)
	must(t, err)
	table, err := os.ReadFile("/proc/net/tcp")
	must(t, err)
	count := 0
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 3 && strings.HasSuffix(f[2], fmt.Sprintf(":%04X", n)) && f[3] == "01" {
			count++
		}
	}
	return count
}

func awaitNoConnection(t *testing.T, ctx context.Context, r *Relay) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		n := connections(t, r.IMAPTLS)
		if n == 0 {
			return
		}
		if time.Since(start) > 30*time.Second || ctx.Err() != nil {
			t.Fatalf("%d connections of idle bots", n)
		}
	}
}

// memory is the most that the daemon has had, in MB.
func (h *host) memory() int {
	h.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.command.Process.Pid))
	must(h.t, err)
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kB, err := strconv.Atoi(strings.Fields(rest + " none")[0])
	must(h.t, err)
	return kB >> 10
}
