package admin

import (
	"context"
	"time"

	"mayfly/internal/bot"
)

// Usage is what bots used, and what the host has.
type Usage struct {
	Bots []BotUsage `json:"bots"`
	Host HostUsage  `json:"host"`
}

// BotUsage is what one bot used in the last hour and the last 24 hours.
type BotUsage struct {
	Bot     bot.Address   `json:"bot"`
	CPUHour time.Duration `json:"cpu_hour_ns"` // of its own program
	CPUDay  time.Duration `json:"cpu_day_ns"`
	CoreDay time.Duration `json:"core_cpu_day_ns"` // of core, for it
	InHour  int           `json:"mails_hour"`      // that the gate let pass
	InDay   int           `json:"mails_day"`
	RunsDay int           `json:"runs_day"`
	Disk    int64         `json:"disk_bytes"`
}

// HostUsage is what all bots together take, and what they may; 0 is no ceiling.
type HostUsage struct {
	Bots     int           `json:"bots"`
	MaxBots  int           `json:"bots_most"`
	Disk     int64         `json:"disk_bytes"` // accounts, folders and bundles
	MaxDisk  int64         `json:"disk_bytes_most"`
	Ledger   int64         `json:"ledger_bytes"` // with its write-ahead log
	Free     int64         `json:"free_bytes"`   // where the state folder is
	CPU      time.Duration `json:"cpu_hour_ns"`  // of all sandboxes
	MaxCPU   time.Duration `json:"cpu_hour_most_ns"`
	Over     string        `json:"over,omitempty"` // the ceiling for which all bots wait
	OverTill time.Time     `json:"over_until,omitzero"`
}

// Ceilings are the operator's of all bots together; 0 is none.
type Ceilings struct {
	Bots    int
	Disk    int64
	CPUHour time.Duration
}

// Usage says what was used.
func (d *Desk) Usage(ctx context.Context, q Which) (Usage, error) {
	bots, err := d.all(ctx, q)
	if err != nil {
		return Usage{}, err
	}
	answer := Usage{Bots: []BotUsage{}}
	for _, b := range bots {
		one, err := d.botUsage(ctx, b.Address)
		if err != nil {
			return answer, err
		}
		answer.Bots = append(answer.Bots, one)
	}
	answer.Host, err = d.hostUsage(ctx)
	return answer, err
}

func (d *Desk) botUsage(ctx context.Context, addr bot.Address) (BotUsage, error) {
	now := d.Now()
	hour, err := d.Ledger.Summary(ctx, addr, now.Add(-time.Hour))
	if err != nil {
		return BotUsage{}, err
	}
	day, err := d.Ledger.Summary(ctx, addr, now.Add(-24*time.Hour))
	if err != nil {
		return BotUsage{}, err
	}
	disk, err := d.Host.Disk(addr)
	return BotUsage{
		Bot: addr, CPUHour: hour.CPU, CPUDay: day.CPU, CoreDay: day.CoreCPU, InHour: hour.Mails, InDay: day.Mails, RunsDay: day.Runs, Disk: disk,
	}, err
}

func (d *Desk) hostUsage(ctx context.Context) (u HostUsage, err error) {
	most := d.Host.Ceilings()
	u.MaxBots, u.MaxDisk, u.MaxCPU, u.Ledger = most.Bots, most.Disk, most.CPUHour, d.Ledger.Size()
	if u.Bots, err = d.Ledger.CountBots(ctx); err != nil {
		return u, err
	}
	if u.Disk, err = d.Host.Disk(""); err != nil {
		return u, err
	}
	if u.CPU, err = d.Host.CPU(ctx); err != nil {
		return u, err
	}
	if u.Over, u.OverTill, err = d.Host.Over(ctx, ""); err != nil {
		return u, err
	}
	u.Free, err = d.Host.Free()
	return u, err
}

// Whole says what all bots together take.
func (d *Desk) Whole(ctx context.Context, _ Nothing) (HostUsage, error) { return d.hostUsage(ctx) }
