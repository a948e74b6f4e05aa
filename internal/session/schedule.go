package session

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/core"
	"mayfly/internal/gateway"
	"mayfly/internal/ledger"
)

// Schedule is what a bot is run for where no mail came: an instant of a schedule in its manifest.
type Schedule struct {
	ledger.Instant
	Last     time.Time // when the last run that did not fail began; zero: never
	Attempts int       // sessions that were started for the instant, with this one
}

// cron is the schedule's line; empty where the bot is run for a message.
func (s *Schedule) cron() string {
	if s == nil {
		return ""
	}
	return s.Cron
}

func (s *Schedule) instant() *ledger.Instant {
	if s == nil {
		return nil
	}
	return &s.Instant
}

// attempts is how many sessions were started for what the work is about.
func (w Work) attempts() int {
	if w.Schedule != nil {
		return w.Schedule.Attempts
	}
	return w.Job.Attempts
}

// jobs are those that the session finishes.
func (w Work) jobs() []int64 {
	if w.Schedule != nil {
		return nil
	}
	return []int64{w.Job.ID}
}

// commitFailed commits that a scheduled run has failed, and nothing else: core has nothing to learn of it.
func (r *Runner) commitFailed(ctx context.Context, w Work, failed *runFailed, started time.Time) (Outcome, error) {
	end := ending{account: w.Bot.Account, uidNext: w.Bot.UIDNext, state: w.Bot.State}
	alone := part{work: w, run: &failed.record, folder: w.Bot.Storage, unsent: failed.record.Unsent, started: started}
	outcome, err := r.commit(ctx, []part{alone}, end)
	if err != nil {
		err = &Spent{err, failed.record.CPU, failed.record.AtOnce}
	}
	return outcome, err
}

// event is what a script's handler gets of it; package worker describes it.
func (s *Schedule) event() map[string]any {
	e := map[string]any{"cron": s.Cron, "scheduledTime": s.At.UnixMilli(), "lastRun": nil}
	if !s.Last.IsZero() {
		e["lastRun"] = s.Last.UnixMilli()
	}
	return e
}

// env is what programs get of it; nothing where they are run for a message.
func (s *Schedule) env() []string {
	if s == nil {
		return nil
	}
	env := []string{"MAYFLY_SCHEDULE=" + s.Cron, "MAYFLY_SCHEDULED_TIME=" + strconv.FormatInt(s.At.Unix(), 10)}
	if !s.Last.IsZero() {
		env = append(env, "MAYFLY_LAST_RUN="+strconv.FormatInt(s.Last.Unix(), 10))
	}
	return env
}

// posting is a text that a pipe's program wants to have in some chats.
type posting struct {
	chats []uint32
	text  string
}

// errNoChat says that a program printed what nobody can be sent.
var errNoChat = errors.New(`what a scheduled run prints begins with a line "To: " and the number of a chat, as in MAYFLY_CHAT_ID, or several with commas between them`)

// postings takes apart what a program printed. A line of "To:" and numbers of chats begins a text, which goes on until the next such line.
func postings(printed string) ([]posting, error) {
	to := regexp.MustCompile(`^To: *([0-9]+(?: *, *[0-9]+)*) *\r?$`)
	var list []posting
	for line := range strings.Lines(printed) {
		found := to.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		switch {
		case found != nil:
			chats, err := chatsIn(found[1])
			if err != nil {
				return nil, err
			}
			list = append(list, posting{chats: chats})
		case len(list) > 0:
			list[len(list)-1].text += line
		case strings.TrimSpace(line) != "":
			return nil, errNoChat
		}
	}
	return list, nil
}

func chatsIn(list string) ([]uint32, error) {
	var chats []uint32
	for _, number := range strings.Split(list, ",") {
		id, err := strconv.ParseUint(strings.TrimSpace(number), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%w, and %.20s is none", errNoChat, number)
		}
		chats = append(chats, uint32(id))
	}
	return chats, nil
}

// post sends what the program printed, by the gateway, which knows who may be written to. What it refuses is in the run's log.
func (p *program) post(ctx context.Context, c *coreSide, o occasion, f finish, printed string) (finish, error) {
	list, err := postings(strings.ToValidUTF8(printed, "\uFFFD"))
	if err != nil {
		f.status, f.message = bot.RunError, err.Error()
		return f, nil
	}
	g := gateway.New(p.gatewayOptions(c, o, newFiles(c, p)))
	p.asked = g.Asked
	for _, posting := range list {
		text := strings.TrimSpace(posting.text)
		for _, chat := range posting.chats {
			if text == "" {
				break
			}
			if _, err := g.Call(ctx, "send_msg", g.Account(), chat, core.MessageData{Text: text}); err != nil {
				p.log.add(fmt.Appendf(nil, "To: %d: not sent: %v\n", chat, err))
			}
		}
	}
	return f, nil
}
