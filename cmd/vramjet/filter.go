package main

import (
	"fmt"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// flowFlags say which flows are meant.
type flowFlags struct {
	Model string `short:"m" placeholder:"MODEL" help:"Only this model, or those that match a pattern (qwen3:*)."`
	Class string `enum:",interactive,normal,batch" default:"" placeholder:"CLASS" help:"Only this class: interactive, normal or batch."`
}

// filter returns what the flags say.
func (f *flowFlags) filter() (schemas.Filter, error) {
	filter := schemas.Filter{Class: schemas.Class(f.Class), Model: f.Model}
	if err := filter.Check(); err != nil {
		return filter, usage(err)
	}
	return filter, nil
}

// since returns the time so long ago; zero for none.
func since(ago time.Duration, now time.Time) time.Time {
	if ago <= 0 {
		return time.Time{}
	}
	return now.Add(-ago)
}

// ago writes how long ago something was: 12s ago, 3m12s ago, 2h05m ago, 3d ago.
func ago(d time.Duration) string {
	s := int64(max(d, 0).Seconds())
	switch {
	case s < 60:
		return fmt.Sprintf("%ds ago", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds ago", s/60, s%60)
	case s < 48*3600:
		return fmt.Sprintf("%dh%02dm ago", s/3600, s%3600/60)
	default:
		return fmt.Sprintf("%dd ago", s/86400)
	}
}
