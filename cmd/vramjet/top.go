package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"
)

// topEvery is how often the screen is drawn anew.
const topEvery = time.Second

// topCmd shows what goes on, on a terminal.
type topCmd struct {
	patience
}

// Help is shown below the command's summary.
func (*topCmd) Help() string {
	return `Nodes, flows and running jobs, drawn anew once a second until q or ctrl-C. Where the output is no terminal, one picture is printed. "?" is what nobody knows, or what this user may not ask.

OLDEST is for how long the first job of a flow has waited, and BLOCKED BY why it does.

Examples:

    vramjet top
    vramjet top > now.txt
`
}

// Run draws until ctx ends or somebody types q.
func (c *topCmd) Run(ctx context.Context, a *app) error {
	g, err := a.gatherer(ctx)
	if err != nil {
		return err
	}
	defer g.nc.Close()
	screen, err := openScreen(a.in, a.out)
	if errors.Is(err, errNoTerminal) {
		s := lookForTop(ctx, g, c.Wait)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		_, err := io.WriteString(a.out, strings.Join(s.lines(0, 0), "\n")+"\n")
		return err
	}
	if err != nil {
		return err
	}
	defer screen.close()
	var keys sync.WaitGroup
	defer keys.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	keys.Go(func() { screen.untilQuit(ctx); stop() })
	tick := time.NewTicker(topEvery)
	defer tick.Stop()
	for {
		s := lookForTop(ctx, g, c.Wait)
		if ctx.Err() != nil {
			return nil // that is how it ends
		}
		if err := screen.draw(s.lines(screen.size())); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// errNoTerminal means that nobody looks at a screen there.
var errNoTerminal = errors.New("the output is no terminal")

// What a terminal is told.
const (
	toOtherScreen = "\x1b[?1049h\x1b[?25l" // and no cursor
	toOwnScreen   = "\x1b[?25h\x1b[?1049l"
	toTop         = "\x1b[H"
	clearLine     = "\x1b[K"
	clearRest     = "\x1b[J"
)

// draw shows lines in place of those before.
func (s *screen) draw(lines []string) error {
	var b strings.Builder
	b.WriteString(toTop)
	for i, l := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(l + clearLine)
	}
	_, err := io.WriteString(s.out, b.String()+clearRest)
	return err
}
