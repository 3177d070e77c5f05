package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/xtaci/kcp-go/v5"
	"github.com/xtaci/smux"
)

func echoServer(s settings, addr string, whileStdin bool) error {
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
			go echoSession(s, conn)
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

func echoSession(s settings, conn *kcp.UDPSession) {
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
		go func() {
			defer stream.Close()
			both := newEndpoint(stream, tap)
			n, err := copyOver(both, both, nil)
			log.Printf("session %v stream %d: echoed %d bytes, then %v", conn.RemoteAddr(), stream.ID(), n, err)
		}()
	}
}

// copyOver is io.Copy without its short cuts, which would go around an endpoint's own Read and Write.
func copyOver(to io.Writer, from io.Reader, count *atomic.Int64) (copied int64, err error) {
	buffer := make([]byte, 32768)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			written, err := to.Write(buffer[:n])
			copied += int64(written)
			if count != nil {
				count.Add(int64(written))
			}
			if err != nil {
				return copied, err
			}
		}
		if err == io.EOF {
			return copied, nil
		}
		if err != nil {
			return copied, err
		}
	}
}

func echoClient(s settings, addr, end string, retry bool) error {
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
	raw, err := session.OpenStream()
	if err != nil {
		return err
	}
	stream := newEndpoint(raw, tap)

	down := make(chan error, 1)
	go func() {
		_, err := copyOver(os.Stdout, stream, &counters.bytesIn)
		os.Stdout.Close()
		down <- err
	}()
	upErr := error(nil)
	if _, upErr = copyOver(stream, os.Stdin, &counters.bytesOut); upErr != nil {
		upErr = fmt.Errorf("sending: %w", upErr)
	}

	var downErr error
	switch end {
	case "close":
		stream.Close()
		<-down // of no interest: our own closing ends it
	case "half":
		if upErr == nil {
			upErr = tap.halfClose(raw.ID())
		}
		downErr = <-down
		stream.Close()
	case "hold":
		for upErr == nil && downErr == nil && counters.bytesIn.Load() < counters.bytesOut.Load() {
			select {
			case downErr = <-down:
				if downErr == nil {
					downErr = errors.New("the server ended the stream")
				}
			case <-time.After(time.Millisecond):
			}
		}
		stream.Close()
	default:
		return fmt.Errorf("--end %s: want hold, half or close", end)
	}
	session.Close()
	conn.Close()
	packets.drained(250 * time.Millisecond)
	time.Sleep(20 * time.Millisecond) // for the last packet to leave for TCP
	packets.Close()
	if upErr != nil {
		return upErr
	}
	if downErr != nil {
		return fmt.Errorf("receiving: %w", downErr)
	}
	if in, out := counters.bytesIn.Load(), counters.bytesOut.Load(); end != "close" && in != out {
		return fmt.Errorf("%d bytes came back of %d", in, out)
	}
	return nil
}
