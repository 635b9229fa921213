package brokertest

import (
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/vramjet/vramjet/broker/embedded"
)

// StartCluster starts n servers that are one cluster. It does not wait until the
// cluster has elected its leader, which takes seconds: broker.Setup does. The
// servers are stopped when tb ends, if not before.
func StartCluster(tb testing.TB, n int) []*embedded.Server {
	tb.Helper()
	ports := freePorts(tb, n)
	var routes []string
	for _, p := range ports {
		routes = append(routes, "nats://127.0.0.1:"+strconv.Itoa(p))
	}
	var servers []*embedded.Server
	for i, p := range ports {
		servers = append(servers, StartServer(tb, embedded.Config{Base: &server.Options{
			ServerName: "n" + strconv.Itoa(i),
			Cluster:    server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: p},
			Routes:     server.RoutesFromStr(strings.Join(routes, ",")),
		}}))
	}
	return servers
}

// freePorts returns n ports that nobody listens on.
func freePorts(tb testing.TB, n int) []int {
	tb.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		defer func() { _ = l.Close() }() // at the end, so that no port comes twice
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}
