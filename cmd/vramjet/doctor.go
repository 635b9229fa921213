package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// doctorCmd looks at everything at once.
type doctorCmd struct {
	Monitor []string `placeholder:"URL" help:"Monitoring of a NATS server, such as http://10.0.0.1:8222; once for each server (default: port 8222 of the host that answers, if that is the same server)."`
	patience
}

// Help is shown below the command's summary.
func (*doctorCmd) Help() string {
	return `Looks at the NATS server, the streams, the dispatchers, the nodes and the queue, and changes nothing. A line for each check: ok, warn (it works, but not as it should, or nobody can say) or FAIL, and below a bad one what to do.

It takes an operator, where NATS has users. The exit code is 1 where a check fails; 5 where NATS cannot be reached, and 6 where no dispatcher or no node answers.

Examples:

    vramjet doctor
    vramjet doctor --context vramjet-auth/operator-admin.json
    vramjet doctor --monitor http://n1:8222 --monitor http://n2:8222 --json
`
}

// A check is something that doctor looks at.
type check string

// The checks, in their order.
const (
	checkNATS        check = "nats"
	checkJetStream   check = "jetstream"
	checkStreams     check = "streams"
	checkReplicas    check = "replicas"
	checkSync        check = "sync"
	checkPayload     check = "payload"
	checkClocks      check = "clocks"
	checkPermissions check = "permissions"
	checkDispatchers check = "dispatchers"
	checkNodes       check = "nodes"
	checkBackends    check = "backends"
	checkDevices     check = "devices"
	checkConsumers   check = "consumers"
	checkLeases      check = "leases"
	checkLimits      check = "limits"
	checkDead        check = "dead"
)

// A remark is what a check has come to.
type remark struct {
	Check  check  `json:"check"`
	Result result `json:"result"` // ok, warning or failed
	Text   string `json:"text"`
	Fix    string `json:"fix,omitempty"` // what to do: a command, or what to configure
}

func (c check) ok(format string, args ...any) remark {
	return remark{Check: c, Result: resultOK, Text: fmt.Sprintf(format, args...)}
}

func (c check) warn(fix, format string, args ...any) remark {
	return remark{Check: c, Result: resultWarning, Text: fmt.Sprintf(format, args...), Fix: fix}
}

func (c check) fail(fix, format string, args ...any) remark {
	return remark{Check: c, Result: resultFailed, Text: fmt.Sprintf(format, args...), Fix: fix}
}

// notMade says why a check could not be made. What it may not ask, the check of
// permissions says how to be allowed.
func (c check) notMade(err error) []remark {
	return []remark{c.warn("", "not checked: %s", oneLine(err.Error()))}
}

// Run looks once, and prints what that comes to.
func (d *doctorCmd) Run(ctx context.Context, a *app) error {
	for _, url := range d.Monitor {
		if !validURL(url) {
			return usage(fmt.Errorf("--monitor: %q is not like http://127.0.0.1:8222", redact(url)))
		}
	}
	remarks, err := d.examine(ctx, a)
	if err != nil {
		return err
	}
	if a.asJSON() {
		err = a.printJSON(remarks)
	} else {
		err = printRemarks(a.out, remarks)
	}
	if err != nil {
		return err
	}
	return conclude(remarks)
}

// examine gathers facts and judges them. The error is one of the command line, or of
// the configuration; all else is a remark.
func (d *doctorCmd) examine(ctx context.Context, a *app) ([]remark, error) {
	g, err := a.gatherer(ctx)
	if err != nil && exitCode(err) == exitNoNATS {
		return []remark{checkNATS.fail("vramjet config show   # which address is used, and who says so", "%s", oneLine(err.Error()))}, nil
	}
	if err != nil {
		return nil, err
	}
	defer g.nc.Close()
	f := g.gather(ctx, d.Monitor, d.Wait)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return diagnose(f), nil
}

// diagnose returns what facts come to, in the order of the checks.
func diagnose(f *facts) (all []remark) {
	for _, of := range []func(*facts) []remark{
		judgeNATS, judgeJetStream, judgeStreams, judgeReplicas, judgeSync, judgePayload, judgeClocks, judgePermissions,
		judgeDispatchers, judgeNodes, judgeBackends, judgeDevices, judgeConsumers, judgeLeases, judgeLimits, judgeDead,
	} {
		all = append(all, of(f)...)
	}
	return all
}

func printRemarks(out io.Writer, remarks []remark) error {
	words := map[result]string{resultOK: "ok", resultWarning: "warn", resultFailed: "FAIL"}
	var b strings.Builder
	for _, r := range remarks {
		fmt.Fprintf(&b, "%-4s  %-11s  %s\n", words[r.Result], r.Check, r.Text)
		if r.Fix != "" {
			fmt.Fprintf(&b, "        %s\n", r.Fix)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// conclude returns an error where a check failed. Its exit code is that of the first.
func conclude(remarks []remark) error {
	failed, code := 0, exitOK
	for _, r := range remarks {
		if r.Result != resultFailed {
			continue
		}
		if failed++; failed > 1 {
			continue
		}
		switch r.Check {
		case checkNATS:
			code = exitNoNATS
		case checkDispatchers, checkNodes:
			code = exitNoDispatcher
		default:
			code = exitFailed
		}
	}
	if failed == 0 {
		return nil
	}
	return &codedError{code, errors.New(count(failed, "check") + " failed")}
}

// within reports whether a time is no longer ago than d. What never was is not.
func within(at, now time.Time, d time.Duration) bool { return !at.IsZero() && now.Sub(at) <= d }
