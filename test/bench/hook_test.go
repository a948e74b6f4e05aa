//go:build bench

package bench

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/test/relay"
)

// delivery is a mail that the relay has put into an INBOX.
type delivery struct {
	to bot.Address
	at time.Time
}

// deliveries is between the relay's hook and the host: it notes when mail is in an INBOX, and passes on all that it is told.
type deliveries struct {
	noted chan delivery
	conn  *net.UnixConn
}

func watchDeliveries(t *testing.T, r *relay.Relay, host string) *deliveries {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: r.Hook, Net: "unixgram"})
	must(t, err)
	must(t, os.Chmod(r.Hook, 0o666))
	d := &deliveries{noted: make(chan delivery, 1000), conn: conn}
	ended := make(chan error, 1)
	go func() { ended <- d.pass(&net.UnixAddr{Name: host, Net: "unixgram"}) }()
	t.Cleanup(func() {
		must(t, conn.Close())
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("passing on what the hook tells: %v", err)
		}
	})
	return d
}

// pass reads lines as package wake says: version TAB account TAB mailbox TAB uid.
func (d *deliveries) pass(host *net.UnixAddr) error {
	line := make([]byte, 1024)
	for {
		n, err := d.conn.Read(line)
		if err != nil {
			return err
		}
		at := time.Now()
		if _, err := d.conn.WriteToUnix(line[:n], host); err != nil {
			return err
		}
		if fields := strings.Split(string(line[:n]), "\t"); len(fields) == 4 && fields[2] == "INBOX" {
			d.noted <- delivery{bot.Address(fields[1]), at}
		}
	}
}

// forget drops what was noted so far.
func (d *deliveries) forget() {
	for len(d.noted) > 0 {
		<-d.noted
	}
}

// await returns when the next mail of an account was in its INBOX.
func (d *deliveries) await(ctx context.Context, to bot.Address) (time.Time, error) {
	for {
		select {
		case x := <-d.noted:
			if x.to == to {
				return x.at, nil
			}
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
}
