// Package accountreader tells the daemon what core's account knows and what core has still to do. It is the one place that
// knows the schema of core's database, dc.db, which is core's private matter.
//
// It has two halves. Serve runs as a process of its own inside core's sandbox, beside the live core and after its end, because
// dc.db has been shaped by foreign mail and the daemon never opens such a file. Client runs in the daemon and takes
// nothing of what Serve says for granted.
//
// # Protocol
//
// One JSON object a line, one answer to each request, in order:
//
//	{"ask":"pending"}   {"pending":{"smtp":1,"smtp_status_updates":0,"download":0,"available_post_msgs":0,"imap":0}}
//	{"ask":"state"}     {"state":{"schema":167,"readable":true,"self_keys":["xVg…"],"public_keys":["xjM…"],…}}
//	anything else       {"error":"…"}
//
// The fields are those of bot.Pending and bot.AccountState; keys are binary transferable keys (RFC 9580, section 10) in base64.
// An error on account of an unknown schema also has "unknown_schema":true. A request is at most 4 kB, an answer at most
// MaxLine. Serve ends at the end of its input.
//
// # The schema
//
// Core keeps its schema's number in config.dbversion. Known are 159 (core 2.57), 167 (2.62) and 169 (2.65), tested, and what
// lies between. A known table that changes its meaning keeps its columns (in 2.61 or 2.62 smtp2 took over from smtp, which
// stays and is always empty), so an unknown number is not read by guess: Pending is an error, and a state says Readable=false
// and holds what the known queries found.
//
//	keypairs             private_key: binary secret keys; config.key_id is the id of the one in use
//	public_keys          public_key: binary keys of contacts, and the account's own, one for each fingerprint
//	tokens               token, by namespc: 100 invite numbers, 110 auth tokens
//	broadcast_secrets    secret
//	smtp, smtp2          mails to submit; also smtp_mdns (receipts) and imap_send (appends)
//	smtp_status_updates  webxdc updates to be made into mails
//	download, available_post_msgs   mails to fetch; filled only while core works on a batch
//	imap                 mails on the server; to be moved or deleted where target differs from folder
//	imap_markseen        mails to be flagged
package accountreader

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"mayfly/internal/bot"
)

// maxRequest bounds a request, and requestTime what it may take: a database may be made so that a query never ends.
const (
	maxRequest  = 4 << 10
	requestTime = 5 * time.Second
)

type request struct {
	Ask string `json:"ask"`
}

type reply struct {
	Pending       *bot.Pending      `json:"pending,omitempty"`
	State         *bot.AccountState `json:"state,omitempty"`
	Error         string            `json:"error,omitempty"`
	UnknownSchema bool              `json:"unknown_schema,omitempty"`
}

// Main is the process: it serves stdin and stdout for the accounts folder that is its one argument. It returns the exit status:
// 0 at the end of stdin, 64 when called wrongly, 74 when a pipe broke (sysexits).
func Main(stdin, stdout, stderr *os.File, args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(stderr, "account-reader: want one argument, core's accounts folder")
		return 64
	}
	if err := Serve(stdin, stdout, args[0]); err != nil {
		fmt.Fprintf(stderr, "account-reader: %v\n", err)
		return 74
	}
	return 0
}

// Serve answers requests until in ends. dir is core's accounts folder (DC_ACCOUNTS_PATH) with exactly one account; it may come
// to be after the start. The database is opened for each request, read in one short transaction and closed, so that core can
// checkpoint at any time and is the one to close it last.
func Serve(in io.Reader, out io.Writer, dir string) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxRequest)
	answers := json.NewEncoder(out)
	answers.SetEscapeHTML(false)
	for lines.Scan() {
		if err := answers.Encode(respond(lines.Bytes(), dir)); err != nil {
			return fmt.Errorf("write answer: %w", err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	return nil
}

func respond(line []byte, dir string) reply {
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		return refuse(fmt.Errorf("request: %w", err))
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTime)
	defer cancel()
	switch r.Ask {
	case "pending":
		p, err := readPending(ctx, dir)
		if err != nil {
			return refuse(err)
		}
		return reply{Pending: &p}
	case "state":
		s, err := readState(ctx, dir)
		if err != nil {
			return refuse(err)
		}
		return reply{State: &s}
	}
	return refuse(fmt.Errorf("request: unknown ask %q: want pending or state", r.Ask))
}

func refuse(err error) reply {
	return reply{Error: clip(err.Error()), UnknownSchema: errors.Is(err, ErrSchema)}
}
