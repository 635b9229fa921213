package main

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
)

// traceFlush bounds how long a process that ends waits for its last spans to be taken.
const traceFlush = 3 * time.Second

// startTracing has spans sent by OTLP over HTTP where OpenTelemetry's own variables say
// so, and returns what sends the last ones. They also say to whom, how many, and with
// which headers.
func (a *app) startTracing(ctx context.Context) (stop func(), err error) {
	wanted := a.getenv("OTEL_EXPORTER_OTLP_ENDPOINT") + a.getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
	if wanted == "" || a.getenv("OTEL_SDK_DISABLED") == "true" {
		return func() {}, nil
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, usage(err)
	}
	what, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(), resource.WithAttributes(
		attribute.String("service.name", "vramjet"), attribute.String("service.version", version),
	), resource.WithFromEnv())
	if err != nil {
		return nil, usage(err)
	}
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter), trace.WithResource(what))
	otel.SetTracerProvider(provider)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { a.logger().Warn("traces are not sent", "err", err) }))
	return func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), traceFlush)
		defer cancel()
		_ = provider.Shutdown(late) // the handler has told why
	}, nil
}
