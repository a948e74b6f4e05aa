package session

import (
	"sync"
	"time"
)

// Mark is one stage of a session and when it was reached.
type Mark struct {
	Stage string    `json:"stage"`
	At    time.Time `json:"at"`
}

// Timeline records when the stages of a mail's life were reached. Its methods may be called from any goroutine.
type Timeline struct {
	mu    sync.Mutex
	marks []Mark
}

// NewTimeline begins with the wake.
func NewTimeline(wake time.Time) *Timeline {
	return &Timeline{marks: []Mark{{"wake", wake}}}
}

// Mark records that a stage is reached now. A stage that was reached before keeps its first time.
func (t *Timeline) Mark(stage string) { t.MarkAt(stage, time.Now()) }

// MarkAt records that a stage was reached at a time that shows only afterwards.
func (t *Timeline) MarkAt(stage string, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.marks {
		if m.Stage == stage {
			return
		}
	}
	t.marks = append(t.marks, Mark{stage, at})
}

// Marks is a copy of what was recorded, in the order in which it was reached.
func (t *Timeline) Marks() []Mark {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Mark(nil), t.marks...)
}
