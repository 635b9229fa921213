package worker

import (
	"testing"
	"time"
)

func TestLease(t *testing.T) {
	start := time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	l := newLease("ack", start, 25*time.Second)
	if !l.held(at(24)) || l.held(at(25)) {
		t.Error("a lease of 25 s is held for 25 s")
	}
	l.prolong(at(11), at(35))
	if !l.held(at(34)) || l.held(at(35)) {
		t.Error("the lease was prolonged to 35 s")
	}
	l.prolong(at(12), at(30))
	if !l.held(at(34)) {
		t.Error("an older answer made the lease shorter")
	}
	l.prolong(at(36), at(60))
	if l.held(at(36)) {
		t.Error("a lease that ran out came back")
	}
}

func TestLostLeaseStaysLost(t *testing.T) {
	start := time.Now()
	l := newLease("ack", start, time.Hour)
	l.lose()
	l.prolong(start, start.Add(2*time.Hour))
	if l.held(start) {
		t.Error("a lease that was given up came back")
	}
}
