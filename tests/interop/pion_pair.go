// Two clients of pion's TURN library exchange messages, relay to relay.
//
// pion_pair udp|tcp|tls ADDRESS PORT USER PASSWORD CERTIFICATE; prints
// `received N/M`. The certificate is the one to trust over TLS.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v2"
)

const (
	messages          = 20
	messageBytes      = 500
	timeToConnect     = 10 * time.Second
	timePerMessage    = 5 * time.Second
	largestDatagram   = 65535
	argumentsExpected = 6
)

type server struct {
	transport, address, user, password, certificate string
}

func main() {
	if len(os.Args) != argumentsExpected+1 {
		fail(fmt.Errorf("%d arguments, not %d", len(os.Args)-1, argumentsExpected))
	}
	arguments := os.Args[1:]
	received, err := run(server{
		transport:   arguments[0],
		address:     net.JoinHostPort(arguments[1], arguments[2]),
		user:        arguments[3],
		password:    arguments[4],
		certificate: arguments[5],
	})
	fmt.Printf("received %d/%d\n", received, messages)
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func run(where server) (int, error) {
	a, relayA, err := where.allocate()
	if err != nil {
		return 0, fmt.Errorf("a: %w", err)
	}
	defer a.Close()
	defer relayA.Close()
	b, relayB, err := where.allocate()
	if err != nil {
		return 0, fmt.Errorf("b: %w", err)
	}
	defer b.Close()
	defer relayB.Close()
	// Only what the other side sends first needs this; sending does it too.
	if err := b.CreatePermission(relayA.LocalAddr()); err != nil {
		return 0, fmt.Errorf("permission: %w", err)
	}
	return exchange(relayA, relayB)
}

func (where server) allocate() (*turn.Client, net.PacketConn, error) {
	conn, err := where.connect()
	if err != nil {
		return nil, nil, err
	}
	client, err := turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: where.address,
		TURNServerAddr: where.address,
		Username:       where.user,
		Password:       where.password,
		Conn:           conn,
		LoggerFactory:  logging.NewDefaultLoggerFactory(),
	})
	if err != nil {
		return nil, nil, err
	}
	if err := client.Listen(); err != nil {
		return nil, nil, err
	}
	relay, err := client.Allocate()
	return client, relay, err
}

func (where server) connect() (net.PacketConn, error) {
	if where.transport == "udp" {
		return net.ListenPacket("udp", ":0")
	}
	dialer := net.Dialer{Timeout: timeToConnect}
	if where.transport == "tcp" {
		conn, err := dialer.Dial("tcp", where.address)
		if err != nil {
			return nil, err
		}
		return turn.NewSTUNConn(conn), nil
	}
	trusted, err := os.ReadFile(where.certificate)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(trusted) {
		return nil, fmt.Errorf("no certificate in %s", where.certificate)
	}
	conn, err := tls.DialWithDialer(&dialer, "tcp", where.address, &tls.Config{RootCAs: roots})
	if err != nil {
		return nil, err
	}
	return turn.NewSTUNConn(conn), nil
}

// exchange counts the messages that went there and came back intact.
func exchange(a, b net.PacketConn) (int, error) {
	buffer := make([]byte, largestDatagram)
	received := 0
	for index := 0; index < messages; index++ {
		message := bytes.Repeat([]byte{byte(index)}, messageBytes)
		if _, err := a.WriteTo(message, b.LocalAddr()); err != nil {
			return received, fmt.Errorf("a sends %d: %w", index, err)
		}
		there, err := receive(b, buffer)
		if err != nil {
			return received, fmt.Errorf("b receives %d: %w", index, err)
		}
		if _, err := b.WriteTo(there, a.LocalAddr()); err != nil {
			return received, fmt.Errorf("b sends %d: %w", index, err)
		}
		back, err := receive(a, buffer)
		if err != nil {
			return received, fmt.Errorf("a receives %d: %w", index, err)
		}
		if !bytes.Equal(back, message) {
			return received, fmt.Errorf("message %d came back altered", index)
		}
		received++
	}
	return received, nil
}

func receive(from net.PacketConn, buffer []byte) ([]byte, error) {
	if err := from.SetReadDeadline(time.Now().Add(timePerMessage)); err != nil {
		return nil, err
	}
	length, _, err := from.ReadFrom(buffer)
	return buffer[:length], err
}
