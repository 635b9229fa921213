package schemas

import (
	"context"

	"go.opentelemetry.io/otel/propagation"
)

// Traceparent returns the trace that ctx is part of as the value of HeaderTrace; "" where
// it is part of none. See W3C Trace Context.
func Traceparent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[HeaderTrace]
}

// WithTraceparent returns ctx as part of a trace, by the value of HeaderTrace. A value that
// is none changes nothing.
func WithTraceparent(ctx context.Context, traceparent string) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{HeaderTrace: traceparent})
}
