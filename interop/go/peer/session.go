package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"time"

	"github.com/xtaci/kcp-go/v5"
	"github.com/xtaci/smux"
)

// serve accepts sessions and gives each of their streams to handle, in a goroutine of its own.
func serve(s settings, addr string, whileStdin bool, handle func(*smux.Stream, *tap)) error {
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	listener, err := kcp.ServeConn(nil, 0, 0, newHub(tcp, s.queue))
	if err != nil {
		return err
	}
	fmt.Printf("listening %v\n", tcp.Addr())
	failed := make(chan error, 1)
	go func() {
		for {
			conn, err := listener.AcceptKCP()
			if err != nil {
				failed <- err
				return
			}
			s.tune(conn)
			go serveSession(s, conn, handle)
		}
	}()
	if whileStdin {
		go func() {
			_, err := io.Copy(io.Discard, os.Stdin)
			failed <- err
		}()
	}
	return <-failed
}

func serveSession(s settings, conn *kcp.UDPSession, handle func(*smux.Stream, *tap)) {
	defer conn.Close()
	log.Printf("session %v: begin", conn.RemoteAddr())
	tap := newTap(conn, s.fin)
	session, err := smux.Server(tap, s.smux())
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	for {
		stream, err := session.AcceptStream()
		if err != nil {
			log.Printf("session %v: end: %v", conn.RemoteAddr(), err)
			return
		}
		go handle(stream, tap)
	}
}

// withSession connects, and closes the session when use returns; what is queued by then still leaves.
func withSession(s settings, addr string, retry bool, use func(*smux.Session, *tap) error) error {
	id := newSessionID()
	packets := dialAgainAndAgain(id, addr, s.queue, retry)
	conn, err := kcp.NewConn2(packets.RemoteAddr(), nil, 0, 0, packets)
	if err != nil {
		return err
	}
	s.tune(conn)
	tap := newTap(conn, s.fin)
	session, err := smux.Client(tap, s.smux())
	if err != nil {
		return err
	}
	err = use(session, tap)
	session.Close()
	conn.Close()
	packets.drained(250 * time.Millisecond)
	time.Sleep(20 * time.Millisecond) // for the last packet to leave for TCP
	packets.Close()
	return err
}
