package client

import (
	"context"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/vramjet/vramjet/schemas"
)

// traceSubmit begins the span of a submission, as part of the job's own trace or of that of
// ctx, and has the job carry on with it. Without a tracer (otel.SetTracerProvider) the job
// carries what it was given.
func traceSubmit(ctx context.Context, job *Job, msg *nats.Msg) (context.Context, func(Ticket, error)) {
	if job.Trace != "" {
		ctx = schemas.WithTraceparent(ctx, job.Trace)
	}
	ctx, span := otel.Tracer("github.com/vramjet/vramjet/client").Start(ctx, "submit "+job.Model,
		trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(
			attribute.String("messaging.system", "nats"), attribute.String("messaging.destination.name", msg.Subject),
			attribute.String("gen_ai.request.model", job.Model),
		))
	if parent := schemas.Traceparent(ctx); parent != "" {
		msg.Header.Set(schemas.HeaderTrace, parent)
	}
	return ctx, func(t Ticket, err error) {
		span.SetAttributes(attribute.String("messaging.message.id", t.ID))
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}
