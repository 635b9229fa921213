package embedded

import (
	"fmt"
	"log/slog"
)

// logger passes on what the server warns of. A server in a program has no right
// to end it, so the first fatal error is handed to whoever started it.
type logger struct {
	log   *slog.Logger
	fatal chan<- string // has room for one
}

func (l *logger) Noticef(string, ...any) {}
func (l *logger) Debugf(string, ...any)  {}
func (l *logger) Tracef(string, ...any)  {}

func (l *logger) Warnf(format string, v ...any) {
	l.log.Warn("NATS server warning", "text", fmt.Sprintf(format, v...))
}

func (l *logger) Errorf(format string, v ...any) {
	l.log.Error("NATS server error", "text", fmt.Sprintf(format, v...))
}

func (l *logger) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.log.Error("NATS server fatal error", "text", text)
	select {
	case l.fatal <- text:
	default:
	}
}
